#include "cli/cli.h"

int main(int argc, char** argv) { return kogia::cli::run(argc, argv); }
