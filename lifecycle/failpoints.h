// Where a test ends the daemon: between any two durable effects of Mount, of a delete and of the
// removal. The order is that of the calls.
#pragma once

#include <array>
#include <string_view>

namespace qsfs::lifecycle {

inline constexpr std::array<std::string_view, 8> kMountFailpoints = {
    "qsfsd.mount.directory", "qsfsd.mount.state",   "qsfsd.mount.network",  "qsfsd.mount.config",
    "qsfsd.mount.bound",     "qsfsd.mount.spawned", "qsfsd.mount.answered", "qsfsd.mount.done"};
inline constexpr std::array<std::string_view, 9> kRemoveFailpoints = {
    "qsfsd.delete.tombstone", "qsfsd.delete.state",   "qsfsd.drain.stopped",
    "qsfsd.drain.mounted",    "qsfsd.drain.archived", "qsfsd.remove.process",
    "qsfsd.remove.unmounted", "qsfsd.remove.data",    "qsfsd.remove.network"};
inline constexpr std::string_view kUpdateConfigFailpoint = "qsfsd.update.config";
inline constexpr std::string_view kUpdateReloadedFailpoint = "qsfsd.update.reloaded";

}  // namespace qsfs::lifecycle
