// Going into the background, and telling the one who waits in the foreground how it went.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace qsfs::fs {

// Lives in the background process. Until ready() or its destruction the foreground process waits;
// when this process dies first, the other says so and exits with 1.
class Background {
 public:
  // Forks: the caller goes on in the child; the parent never returns from this, but exits with 0
  // after ready(), else with the status given to failed(). REQUIRES: no other thread runs yet.
  static Result<Background> enter();

  Background(Background&&) noexcept = default;
  Background& operator=(Background&&) noexcept = default;

  // The parent exits with 0; standard input, output and error go to /dev/null.
  Status ready();
  // The parent exits with `exit_status`; the message is on stderr already.
  void failed(int exit_status);

 private:
  explicit Background(UniqueFd to_parent) : to_parent_(std::move(to_parent)) {}
  UniqueFd to_parent_;
};

}  // namespace qsfs::fs
