#pragma once
// The commands: one file each.

#include "cli/command_line.h"

namespace kogia::cli {

// Each parses its arguments and does its job; 0 is success, failures are thrown.
int run_command(Arguments arguments);
int chat_command(Arguments arguments);
int pull_command(Arguments arguments);
int inspect_command(Arguments arguments);
int tokenize_command(Arguments arguments);
int tokenizer_command(Arguments arguments);
int perplexity_command(Arguments arguments);
int quantize_command(Arguments arguments);
int bench_command(Arguments arguments);
int devices_command(Arguments arguments);
int convert_command(Arguments arguments);
int train_command(Arguments arguments);
int report_command(Arguments arguments);
int synth_command(Arguments arguments);

}  // namespace kogia::cli
