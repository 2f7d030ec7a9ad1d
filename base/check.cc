#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace qsfs {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "qsfs: check failed: %s at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace qsfs
