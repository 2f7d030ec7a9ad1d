#include "zdb/connect.h"

#include "zdb/embedded_backend.h"
#include "zdb/posix_transport.h"
#include "zdb/remote_backend.h"

namespace qsfs::zdb {

Result<std::unique_ptr<Backend>> make_backend(const BackendOptions& options, Clock& clock,
                                              Random& random) {
  QSFS_TRY(check_backend_options(options));
  if (options.address.kind == BackendAddress::Kind::kDirectory) {
    return make_embedded_backend(options, clock, random);
  }
  return std::make_unique<RemoteBackend>(options, make_posix_dialer(clock), clock, random);
}

}  // namespace qsfs::zdb
