// Leases: IPv4 addresses of the ndmz bridge, kept in the files of CNI's host-local plugin, so that
// the other users of the bridge and this program see each other's.
//
// One file per address; its name is the address, its content the key, CR LF and "eth0". The file
// "lock" is held (flock) while the directory is read or changed, "last_reserved_ip.0" says where to
// go on. A lease appears whole or not at all: a file without a key would hold its address for ever.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "lifecycle/network/names.h"

namespace qsfs::lifecycle {

struct LeaseRange {
  Ipv4Address first = 0x647f0002;    // 100.127.0.2.
  Ipv4Address last = 0x647ffffe;     // 100.127.255.254.
  Ipv4Address gateway = 0x647f0001;  // 100.127.0.1; never leased.
};

// How long another program may hold the lock.
inline constexpr Duration kLeaseLockPatience = std::chrono::seconds(10);
// A longer file is nobody's lease.
inline constexpr std::size_t kLeaseFileMax = 4096;

// Thread-safe, and safe beside other processes that hold to the lock.
class Leases {
 public:
  // `directory` is made when it is first needed.
  Leases(std::string directory, LeaseRange range, Clock& clock)
      : directory_(std::move(directory)), range_(range), clock_(clock) {}

  // The address that `key` has, else `preferred` when it is in the range and free, else the next
  // free one. kNoSpace: none is free. kTimeout: the lock is held by somebody.
  Result<Ipv4Address> take(const std::string& key, std::optional<Ipv4Address> preferred);
  // Fine when there is none.
  Status release(const std::string& key);
  // kNotFound.
  Result<Ipv4Address> find(const std::string& key);
  // Keys and their addresses, of all users of the bridge.
  Result<std::map<std::string, Ipv4Address>> list();

 private:
  [[nodiscard]] std::string path_of(const std::string& name) const;
  Status make(Ipv4Address address, const std::string& key) const;
  // The next one after the one that was given last.
  [[nodiscard]] Ipv4Address start_of_search() const;
  Result<Ipv4Address> search(const std::string& key, std::optional<Ipv4Address> preferred) const;
  [[nodiscard]] bool in_range(Ipv4Address address) const;

  const std::string directory_;
  const LeaseRange range_;
  Clock& clock_;
};

}  // namespace qsfs::lifecycle
