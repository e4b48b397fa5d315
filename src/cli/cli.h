#pragma once
// The `kogia` program: one file a command, no logic of its own.

namespace kogia::cli {

/// Parses argv, runs the command, prints errors to standard error. Returns the exit code: 0, 1
/// (failed) or 2 (usage).
int run(int argc, char** argv);

}  // namespace kogia::cli
