// SIGTERM and SIGINT (Ctrl-C) set a flag and nothing else; the training loop looks at it between steps, saves a
// checkpoint and ends with exit code 143. A second signal ends the program at once.
#pragma once

namespace scrna {

/// Installs the handlers; call once at start.
void install_stop_signal_handlers();
/// The signal that asked to stop, or 0.
int stop_signal();
/// For tests: forget a received signal.
void clear_stop_signal();

}  // namespace scrna
