// qsfs: the user's command line.
#include <iostream>

#include "base/posix_disk.h"
#include "cli/command.h"

int main(int argc, char** argv) {
  qsfs::cli::Session session{.out = std::cout,
                             .err = std::cerr,
                             .disk = qsfs::posix_disk(),
                             .random = qsfs::system_random()};
  return qsfs::cli::run(argc, argv, session);
}
