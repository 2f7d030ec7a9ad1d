// Any text as a configuration: no crash, no hang; what is accepted can be written and read again;
// what is refused says why, in bounded words.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/check.h"
#include "zstor/config.h"

using namespace qsfs;         // NOLINT(google-build-using-namespace): a program of one file.
using namespace qsfs::zstor;  // NOLINT(google-build-using-namespace): a program of one file.

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const ConfigLimits& limits : {ConfigLimits{}, ConfigLimits::for_simulation()}) {
    const ParsedConfig parsed = parse_config(text, limits);
    QSFS_CHECK(parsed.config.has_value() == parsed.errors.empty());
    QSFS_CHECK(parsed.errors.size() <= kConfigMessagesMax + 1);
    for (const std::string& message : parsed.errors) QSFS_CHECK(!message.empty());
    if (!parsed.config) continue;
    const std::string written = to_toml(*parsed.config);
    const ParsedConfig again = parse_config(written, limits);
    QSFS_CHECK(again.config.has_value());
    QSFS_CHECK(to_toml(*again.config) == written);
    QSFS_CHECK(again.config->volume.uuid == parsed.config->volume.uuid);
  }
  return 0;
}
