// The failpoints of the log: each lies between two effects that may or may not be durable. A
// simulation asserts that it has reached all of them.
#pragma once

#include <array>
#include <string_view>

namespace qsfs::fs {

inline constexpr std::string_view kFailAfterPayload = "log.after_payload";
inline constexpr std::string_view kFailAfterAppend = "log.after_append";
inline constexpr std::string_view kFailAfterApply = "log.after_apply";
inline constexpr std::string_view kFailSyncAfterRedo = "log.sync.after_redo";
inline constexpr std::string_view kFailSyncAfterData = "log.sync.after_data";
inline constexpr std::string_view kFailSyncAfterJournal = "log.sync.after_journal";
inline constexpr std::string_view kFailPrepareAfterJournal = "log.prepare.after_journal";
inline constexpr std::string_view kFailPrepareAfterData = "log.prepare.after_data";
inline constexpr std::string_view kFailSealBeforeSwitch = "log.seal.before_switch";
inline constexpr std::string_view kFailSealAfterSwitch = "log.seal.after_switch";
inline constexpr std::string_view kFailFinishAfterTrim = "log.finish.after_trim";
inline constexpr std::string_view kFailFinishAfterSums = "log.finish.after_sums";
inline constexpr std::string_view kFailReplayAfterRestore = "log.replay.after_restore";
inline constexpr std::string_view kFailReplayBeforeCut = "log.replay.before_cut";
inline constexpr std::string_view kFailReplayAfterCut = "log.replay.after_cut";
inline constexpr std::string_view kFailReplayAfterRemove = "log.replay.after_remove";
inline constexpr std::string_view kFailReplayAfterApply = "log.replay.after_apply";

inline constexpr std::array kFailpoints = {
    kFailAfterPayload,        kFailAfterAppend,      kFailAfterApply,
    kFailSyncAfterRedo,       kFailSyncAfterData,    kFailSyncAfterJournal,
    kFailPrepareAfterJournal, kFailPrepareAfterData, kFailSealBeforeSwitch,
    kFailSealAfterSwitch,     kFailFinishAfterTrim,  kFailFinishAfterSums,
    kFailReplayAfterRestore,  kFailReplayBeforeCut,  kFailReplayAfterCut,
    kFailReplayAfterRemove,   kFailReplayAfterApply,
};

}  // namespace qsfs::fs
