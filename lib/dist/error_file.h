// torchrun asks each process to leave its error in a file (TORCHELASTIC_ERROR_FILE) and shows that of the
// first to fail.
#pragma once

#include <string_view>

namespace scrna::dist {

/// Writes {"message": {"message": ..., "extraInfo": {"timestamp": ...}}}, as torch.distributed.elastic reads
/// it, when the variable names a file; otherwise does nothing. A file that cannot be written is no second
/// error.
void write_error_file(std::string_view message);

}  // namespace scrna::dist
