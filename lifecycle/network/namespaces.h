// Named network namespaces, as `ip netns` makes them: a file in a directory with the namespace
// mounted on it.
//
// A thread of this program is in another namespace only inside of run_in_namespace() and while one
// is made, and that thread ends there: no other thread ever sees another network.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace qsfs::lifecycle {

// Runs `body` on a thread of its own inside of the namespace and returns when it has ended.
// Sockets that it opens, programs that it starts and /proc/sys/net are those of the namespace.
Status run_in_namespace(const UniqueFd& name_space, const std::function<Status()>& body);

// Thread-safe.
class Namespaces {
 public:
  explicit Namespaces(std::string directory) : directory_(std::move(directory)) {}

  [[nodiscard]] std::string path_of(const std::string& name) const {
    return directory_ + "/" + name;
  }
  // Opens it, after making it when it is not there; a plain file of that name is replaced.
  Result<UniqueFd> open_or_make(const std::string& name);
  // kNotFound: no namespace is mounted there.
  Result<UniqueFd> open(const std::string& name) const;
  // Takes the name away; the namespace itself ends when no process is left in it. Fine when there
  // is none.
  Status remove(const std::string& name);
  // Names that begin with `prefix`, files without a namespace included.
  Result<std::vector<std::string>> list(std::string_view prefix) const;

 private:
  // Other mount namespaces must see what is mounted here later, as with `ip netns`.
  Status share_directory() QSFS_EXCLUDES(mu_);

  const std::string directory_;
  Mutex mu_;
  bool shared_ QSFS_GUARDED_BY(mu_) = false;
};

}  // namespace qsfs::lifecycle
