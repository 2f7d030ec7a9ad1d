// verify(): looks at every shard of an object.
#pragma once

#include <optional>
#include <vector>

#include "zstor/object_store.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {

// Checks under way in one verify().
inline constexpr std::size_t kVerifyInFlightMax = 64;
// A backend that left so many checks of one verify() unanswered is not asked for the others.
inline constexpr unsigned kVerifyUnansweredMax = 2;
inline constexpr Duration kVerifyTimeout = std::chrono::seconds(10);

// One entry for each entry of Manifest::shards: nullopt when it is good.
using ShardVerdicts = std::vector<std::optional<Errc>>;

Result<ShardVerdicts> judge_shards(StoreCore& core, const Manifest& manifest,
                                   const JudgeOptions& options);
// It did not answer, or could not be asked: nothing is known of the shard.
bool is_silence(Errc verdict);
// One shard where it is said to be.
Status judge_shard(StoreCore& core, const StripeCodec& codec, StoreBackend& backend, Bytes key,
                   std::uint32_t stripe, unsigned index, VerifyMode mode);
VerifyReport make_report(const Manifest& manifest, const ShardVerdicts& verdicts);

Result<VerifyReport> verify_object(StoreCore& core, const Manifest& manifest,
                                   const JudgeOptions& options);

}  // namespace qsfs::zstor
