// What the tests of zbus share: a manager that notes its calls, and captured bytes.
#pragma once

#include <fmt/format.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "lifecycle/manager.h"

namespace qsfs::lifecycle {

// Of Go's client: cache 2^30, 2 of 4 shards, key 00…1f, one backend each.
inline constexpr std::string_view kCapturedWorkload =
    "82a54361636865cf0000000040000000a6436f6e66696789ad4d696e696d616c536861726473ce00000002ae457870"
    "6563746564536861726473ce00000004af526564756e64616e7447726f757073ce00000000ae526564756e64616e74"
    "4e6f646573ce00000000b14d61785a44424461746144697253697a65ce00000020aa456e6372797074696f6e82a941"
    "6c676f726974686da3414553a34b6579c420000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c"
    "1d1e1fa44d65746182a454797065a37a6462a6436f6e66696783a6507265666978a170aa456e6372797074696f6e82"
    "a9416c676f726974686da3414553a34b6579c420000000000000000000000000000000000000000000000000000000"
    "0000000000a84261636b656e64739183a741646472657373aa5b3a3a315d3a39393030a94e616d657370616365a16d"
    "a850617373776f7264a27077a647726f7570739181a84261636b656e64739183a741646472657373aa5b3a3a315d3a"
    "39393031a94e616d657370616365a164a850617373776f7264a27077ab436f6d7072657373696f6e81a9416c676f72"
    "6974686da6736e61707079";

inline std::string from_hex(std::string_view hex) {
  std::string out;
  for (std::size_t at = 0; at + 1 < hex.size(); at += 2) {
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(at, 2)), nullptr, 16)));
  }
  return out;
}

// Thread-safe.
class FakeManager final : public Manager {
 public:
  std::optional<Error> refusal;  // Set before use: of every call.
  std::map<std::string, NicCounters> traffic;

  Result<VolumeInfo> mount(const std::string& id, const Workload& workload) override {
    note(fmt::format("mount {} {}", id, workload.cache));
    hold();
    if (refusal) return std::unexpected(*refusal);
    return VolumeInfo{.path = "/m/" + id, .metrics_endpoint = "http://[300::1]:9100/metrics"};
  }
  Result<VolumeInfo> update(const std::string& id, const Workload& workload) override {
    note(fmt::format("update {} {}", id, workload.cache));
    if (refusal) return std::unexpected(*refusal);
    return VolumeInfo{.path = "/m/" + id, .metrics_endpoint = ""};
  }
  Status signal_delete(const std::string& id) override { return noted("delete " + id); }
  Status unmount(const std::string& id) override { return noted("unmount " + id); }
  Result<std::map<std::string, NicCounters>> metrics() override {
    if (refusal) return std::unexpected(*refusal);
    return traffic;
  }
  std::vector<VolumeState> list() override { return {}; }
  Result<VolumeState> show(const std::string& id) override { return fail(Errc::kNotFound, id); }
  std::vector<UndrainedVolume> undrained() override { return {}; }

  std::vector<std::string> calls() {
    const MutexLock lock(mu_);
    return calls_;
  }
  // Mounts wait from now on, until they may go.
  void hold_mounts(bool held) {
    const MutexLock lock(mu_);
    held_ = held;
    changed_.notify_all();
  }

 private:
  void note(std::string call) {
    const MutexLock lock(mu_);
    calls_.push_back(std::move(call));
  }
  Status noted(std::string call) {
    note(std::move(call));
    if (refusal) return std::unexpected(*refusal);
    return {};
  }
  void hold() {
    const MutexLock lock(mu_);
    while (held_) changed_.wait(mu_);
  }

  Mutex mu_;
  CondVar changed_;
  std::vector<std::string> calls_ QSFS_GUARDED_BY(mu_);
  bool held_ QSFS_GUARDED_BY(mu_) = false;
};

}  // namespace qsfs::lifecycle
