#include "cli/store_session.h"

#include <fmt/ostream.h>

#include "cli/target.h"
#include "zstor/config.h"

namespace qsfs::cli {

std::unique_ptr<zstor::ThreadedStore> open_store(Session& session, const std::string& config_path) {
  auto loaded = zstor::load_config(session.disk, absolute_path(config_path));
  if (!loaded) {
    session.report(ExitCode::kUsage, loaded.error().context);
    return nullptr;
  }
  for (const std::string& warning : loaded->warnings) {
    fmt::print(session.err, "qsfs: warning: {}\n", warning);
  }
  auto store =
      zstor::ThreadedStore::open(std::move(loaded->config), {}, system_clock(), session.random);
  if (!store) {
    session.report(store.error());
    return nullptr;
  }
  return std::move(*store);
}

}  // namespace qsfs::cli
