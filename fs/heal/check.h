// check_volume(): do metadata, manifests and shards agree? Looks, and repairs nothing but
// manifests, and these only when asked.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "fs/archive/archiver.h"
#include "fs/meta/meta_store.h"
#include "zstor/object_store.h"

namespace qsfs::fs {

struct CheckParts {
  Archiver& archiver;
  MetaStore& meta;
  zstor::ObjectStore& store;
};

struct CheckOptions {
  bool read_data = false;  // Fetch each shard; else the servers' own CHECK.
  // Manifests that the meta backends lack are put there again, from this machine's metadata.
  bool rebuild_manifests = false;
};

struct CheckProgress {
  std::string phase;  // "metadata", "manifests and shards".
  std::uint64_t done = 0;
  std::uint64_t total = 0;  // 0: not known.
};

struct CheckReport {
  std::uint64_t segments = 0;
  std::uint64_t degraded = 0;  // With shards missing or damaged.
  std::uint64_t lost = 0;      // With fewer than k good shards in some stripe.
  std::uint64_t shards_checked = 0;
  std::uint64_t shards_bad = 0;
  std::uint64_t manifests_missing = 0;
  std::uint64_t manifests_restored = 0;
  std::uint64_t metadata_problems = 0;
  bool head_restored = false;
  std::vector<std::string> problems;  // At most kProblemsMax, for people.

  static constexpr std::size_t kProblemsMax = 50;
  // "ok", "degraded": all is readable; "failed": something is not, or does not agree.
  [[nodiscard]] std::string verdict() const;
  // What to do about it; empty: nothing.
  [[nodiscard]] std::string next_command() const;
};

// `progress` returns false to cancel (kCancelled). Other errors: this disk's, or kUnavailable when
// too few meta backends answer.
Result<CheckReport> check_volume(const CheckParts& parts, const CheckOptions& options,
                                 const std::function<bool(const CheckProgress&)>& progress);

}  // namespace qsfs::fs
