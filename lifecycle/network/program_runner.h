// Runs one program to its end, without a shell.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace qsfs::lifecycle {

struct ProgramCall {
  std::vector<std::string> words;  // The program, as execvp finds it, and its arguments.
  std::string input;
  Duration patience;  // Then it is killed.
  std::size_t output_max = 0;
};

struct ProgramOutcome {
  int exit_code = 0;  // 128 and the signal, when one ended it.
  std::string output;
  std::string errors;  // At most output_max as well.
};

// In the namespaces of the calling thread. kUnavailable: the program is not there; kTimeout;
// kTooBig: it wrote more than output_max. An exit code that is not 0 is no error here.
Result<ProgramOutcome> run_program(const ProgramCall& call);

}  // namespace qsfs::lifecycle
