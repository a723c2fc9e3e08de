// How OpenMP's threads wait for each other. By default libgomp's spin, which on a machine that others use too makes a step
// up to ten times slower: a thread that spins keeps the one it waits for from its core (measured: README.md, "Threads").
#pragma once

namespace scrna::app {

/// Starts the program anew with OMP_WAIT_POLICY=PASSIVE unless the variable is set; returns when it is. libgomp reads the
/// environment when it is loaded, before main(), and offers no call for it. Call before anything that a second start would
/// repeat.
void wait_without_spinning();

}  // namespace scrna::app
