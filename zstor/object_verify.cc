#include "zstor/object_verify.h"

#include <algorithm>
#include <atomic>
#include <memory>

namespace qsfs::zstor {

bool is_silence(Errc verdict) {
  return verdict != Errc::kNotFound && verdict != Errc::kCorruption && verdict != Errc::kIo;
}

Status judge_shard(StoreCore& core, const StripeCodec& codec, StoreBackend& backend, Bytes key,
                   std::uint32_t stripe, unsigned index, VerifyMode mode) {
  if (mode == VerifyMode::kCheck) {
    QSFS_ASSIGN(const zdb::CheckVerdict verdict, backend.check(key, kVerifyTimeout));
    switch (verdict) {
      case zdb::CheckVerdict::kGood:
        return {};
      case zdb::CheckVerdict::kCorrupt:
        return fail(Errc::kCorruption, backend.name() + ": the server found the shard corrupt");
      case zdb::CheckVerdict::kUnreadable:
        return fail(Errc::kIo, backend.name() + ": the server cannot read the shard");
      case zdb::CheckVerdict::kMissing:
        return fail(Errc::kNotFound, backend.name() + ": the shard is not there");
    }
    return fail(Errc::kProtocol, backend.name() + ": unknown verdict");
  }
  QSFS_ASSIGN(const std::optional<Buffer> bytes, backend.get(key, kVerifyTimeout));
  core.counters.shards_read.fetch_add(1, std::memory_order_relaxed);
  if (!bytes) return fail(Errc::kNotFound, backend.name() + ": the shard is not there");
  Status verified = codec.verify_shard(stripe, index, *bytes);
  // A manifest of ours names it, so that it was written as we write: another version is damage.
  if (!verified && verified.error().code == Errc::kUnsupported) {
    return fail(Errc::kCorruption, verified.error().context);
  }
  return verified;
}

Result<ShardVerdicts> judge_shards(StoreCore& core, const Manifest& manifest,
                                   const JudgeOptions& options) {
  // Asked once for each backend, not for each shard.
  std::vector<ShardTrust> trust(manifest.backends.size(), ShardTrust::kVerify);
  for (std::size_t i = 0; options.trust && i < trust.size(); ++i) {
    trust[i] = options.trust(manifest.backends[i].id);
  }
  QSFS_ASSIGN(const RingKey* ring_key, core.keys->find(manifest));
  QSFS_ASSIGN(const auto codec, core.codecs.find(manifest));
  ShardVerdicts verdicts(manifest.shards.size());
  std::vector<std::atomic<unsigned>> unanswered(core.data.size());
  InFlight under_way;
  for (std::size_t at = 0; at < manifest.shards.size(); ++at) {
    const ShardLocation& shard = manifest.shards[at];
    if (shard.backend == ShardLocation::kAbsent) {
      verdicts[at] = Errc::kNotFound;
      continue;
    }
    const auto found = core.find_data(manifest.backends[shard.backend].id);
    if (!found || trust[shard.backend] == ShardTrust::kLost) {
      verdicts[at] = Errc::kUnavailable;
      continue;
    }
    if (trust[shard.backend] == ShardTrust::kTrust) continue;
    const auto stripe = static_cast<std::uint32_t>(at / manifest.total_shards);
    const auto index = static_cast<unsigned>(at % manifest.total_shards);
    under_way.wait_below(kVerifyInFlightMax);
    under_way.begin();
    // Each task writes its own entry; wait_below() makes them visible.
    core.submit(*core.data[*found], BackendLane::Priority::kWrite,
                [&, stripe, index, backend = *found, &verdict = verdicts[at], mode = options.mode,
                 key = StoreCore::key_of(*ring_key, manifest, stripe, index)] {
                  verdict = Errc::kUnavailable;
                  if (unanswered[backend].load() < kVerifyUnansweredMax) {
                    const Status judged =
                        judge_shard(core, *codec, *core.data[backend], key, stripe, index, mode);
                    verdict = judged ? std::nullopt : std::optional(judged.error().code);
                    if (!judged && is_silence(judged.error().code))
                      unanswered[backend].fetch_add(1);
                  }
                  under_way.end();
                });
  }
  under_way.wait_below(1);
  return verdicts;
}

VerifyReport make_report(const Manifest& manifest, const ShardVerdicts& verdicts) {
  VerifyReport report;
  report.shards_checked = verdicts.size();
  report.good_shards_min = manifest.total_shards;
  for (std::size_t stripe = 0; stripe < manifest.stripes.size(); ++stripe) {
    unsigned good = 0;
    for (unsigned index = 0; index < manifest.total_shards; ++index) {
      const std::optional<Errc>& verdict = verdicts[stripe * manifest.total_shards + index];
      if (!verdict) {
        ++good;
      } else if (report.faults.size() < kVerifyFaultsMax) {
        report.faults.push_back(
            {.stripe = static_cast<std::uint32_t>(stripe), .index = index, .reason = *verdict});
      } else {
        report.truncated = true;
      }
    }
    report.good_shards_min = std::min(report.good_shards_min, good);
  }
  return report;
}

Result<VerifyReport> verify_object(StoreCore& core, const Manifest& manifest,
                                   const JudgeOptions& options) {
  QSFS_ASSIGN(const ShardVerdicts verdicts, judge_shards(core, manifest, options));
  return make_report(manifest, verdicts);
}

}  // namespace qsfs::zstor
