#include "zstor/replicated_meta.h"

#include <algorithm>
#include <utility>

#include "zstor/meta_value.h"

namespace qsfs::zstor {
namespace {

std::string missing_text(std::size_t got, std::size_t needed, std::size_t all,
                         const std::string& last_error) {
  std::string text = std::to_string(got) + " of " + std::to_string(all) +
                     " meta backends answered, " + std::to_string(needed) + " are needed";
  if (!last_error.empty()) text += " (last error: " + last_error + ")";
  return text;
}

}  // namespace

// Held by a write and by its calls that are still out; the name is free when the last one goes.
struct ReplicatedMeta::NameLock {
  NameLock(ReplicatedMeta& owner, std::string locked_key)
      : meta(owner), key(std::move(locked_key)) {}
  ~NameLock() { meta.unlock_name(key); }
  NameLock(const NameLock&) = delete;
  NameLock& operator=(const NameLock&) = delete;

  ReplicatedMeta& meta;
  const std::string key;
};

// One question to all backends. Shared with the calls that are still out.
struct ReplicatedMeta::Round {
  Mutex mu;
  CondVar changed;
  std::vector<Answer> answers QSFS_GUARDED_BY(mu);
  std::size_t awaited QSFS_GUARDED_BY(mu) = 0;  // Of those that are well, still out.
  std::size_t out QSFS_GUARDED_BY(mu) = 0;      // All that are still out.
  std::size_t succeeded QSFS_GUARDED_BY(mu) = 0;

  std::string last_error() {
    MutexLock lock(mu);
    std::string text;
    for (const Answer& answer : answers) {
      if (!answer.error.empty()) text = answer.error;
    }
    return text;
  }
};

ReplicatedMeta::ReplicatedMeta(StoreCore& core) : core_(core) {}

std::string ReplicatedMeta::key_of(std::string_view name) const {
  return "/" + core_.config->meta.prefix + "/" + std::string(name);
}

Status ReplicatedMeta::check_name(std::string_view name) const {
  if (name.empty() || name.size() > kMetaNameLenMax || key_of(name).size() > zdb::kKeyLenMax) {
    return fail(Errc::kInvalidArgument, "meta name of " + std::to_string(name.size()) +
                                            " bytes: 1 to " + std::to_string(kMetaNameLenMax) +
                                            " are allowed, and 255 with the prefix");
  }
  return {};
}

std::shared_ptr<ReplicatedMeta::NameLock> ReplicatedMeta::lock_name(const std::string& key) {
  {
    MutexLock lock(mu_);
    while (busy_.contains(key)) unlocked_.wait(mu_);
    busy_.insert(key);
  }
  return std::make_shared<NameLock>(*this, key);
}

std::shared_ptr<ReplicatedMeta::NameLock> ReplicatedMeta::try_lock_name(const std::string& key) {
  {
    MutexLock lock(mu_);
    if (!busy_.insert(key).second) return nullptr;
  }
  return std::make_shared<NameLock>(*this, key);
}

void ReplicatedMeta::unlock_name(const std::string& key) {
  MutexLock lock(mu_);
  busy_.erase(key);
  unlocked_.notify_all();
}

std::shared_ptr<ReplicatedMeta::Round> ReplicatedMeta::ask(
    BackendLane::Priority priority, std::size_t enough, const std::shared_ptr<NameLock>& name_lock,
    Call call) {
  auto round = std::make_shared<Round>();
  const std::size_t count = core_.meta.size();
  std::vector<std::size_t> well;
  std::vector<std::size_t> doubtful;
  for (std::size_t i = 0; i < count; ++i) {
    (core_.meta[i]->health().may_read() ? well : doubtful).push_back(i);
  }
  {
    MutexLock lock(round->mu);
    round->answers.resize(count);
  }
  // One that hangs would hold the name until its time is out, so those that failed a moment ago
  // are left alone while the others will do; reads repair their copies when they are back.
  for (const auto* some : {&well, &doubtful}) {
    {
      MutexLock lock(round->mu);
      if (round->succeeded >= enough) break;
      round->out += some->size();
    }
    for (const std::size_t i : *some) {
      core_.submit(*core_.meta[i], priority, [this, round, call, i, keep = name_lock] {
        Answer answer;
        const Status called = call(*core_.meta[i], answer);
        answer.is_silent = !called;
        if (!called) answer.error = called.error().message();
        MutexLock lock(round->mu);
        if (called) ++round->succeeded;
        --round->out;
        round->answers[i] = std::move(answer);
        round->changed.notify_all();
      });
    }
    MutexLock lock(round->mu);
    while (round->out > 0 && round->succeeded < enough) round->changed.wait(round->mu);
  }
  const MonotonicTime until = core_.deps.clock.now() + kMetaGrace;
  MutexLock lock(round->mu);
  while (round->out > 0) {
    const MonotonicTime now = core_.deps.clock.now();
    if (now >= until || !round->changed.wait_for(round->mu, until - now)) break;
  }
  return round;
}

std::vector<ReplicatedMeta::Answer> ReplicatedMeta::read_copies(const std::string& key) {
  const auto round = ask(BackendLane::Priority::kRead, read_quorum(), nullptr,
                         [key](StoreBackend& backend, Answer& answer) -> Status {
                           auto found = backend.get(as_bytes(key), kMetaTimeout);
                           if (!found) return std::unexpected(std::move(found).error());
                           answer.has_copy = found->has_value();
                           if (*found) answer.copy = std::move(**found);
                           return {};
                         });
  std::vector<Answer> answers;
  {
    MutexLock lock(round->mu);
    // Copied: a call that is still out writes its own entry later.
    answers = round->answers;
  }
  for (Answer& answer : answers) {
    if (!answer.has_copy) continue;
    auto opened = open_meta_value(*core_.config->meta.encryption.key, key, answer.copy);
    answer.is_damaged = !opened;
    if (opened) answer.value = std::move(*opened);
  }
  return answers;
}

Result<std::optional<MetaValue>> ReplicatedMeta::judge(std::string_view name,
                                                       const std::vector<Answer>& answers) const {
  std::size_t heard = 0;
  std::size_t damaged = 0;
  std::size_t silent = 0;
  std::string last_error;
  const MetaValue* newest = nullptr;
  for (const Answer& answer : answers) {
    if (answer.is_silent) {
      ++silent;
      if (!answer.error.empty()) last_error = answer.error;
      continue;
    }
    if (answer.is_damaged) {
      ++damaged;
      continue;
    }
    ++heard;
    if (!answer.value) continue;
    const bool newer =
        newest == nullptr || answer.value->generation > newest->generation ||
        // Two values of one generation: some writer broke the rule. Every reader takes the same.
        (answer.value->generation == newest->generation &&
         std::ranges::lexicographical_compare(newest->bytes, answer.value->bytes));
    if (newer) newest = &*answer.value;
  }
  // Too few were heard, and one that is silent may have a newer one.
  if (heard < read_quorum() && silent > 0) {
    return fail(Errc::kUnavailable,
                "meta value " + std::string(name) + ": " +
                    missing_text(heard, read_quorum(), answers.size(), last_error));
  }
  if (newest != nullptr) return *newest;
  if (damaged > 0) {
    return fail(Errc::kCorruption, "meta value " + std::string(name) + ": " +
                                       std::to_string(damaged) +
                                       " copies were found and none is valid; with another meta "
                                       "key than the one they were written with, none ever is");
  }
  return std::nullopt;
}

Result<std::optional<MetaValue>> ReplicatedMeta::get(std::string_view name) {
  QSFS_TRY(check_name(name));
  const std::string key = key_of(name);
  const std::vector<Answer> answers = read_copies(key);
  QSFS_ASSIGN(std::optional<MetaValue> newest, judge(name, answers));
  if (newest && core_.check_writable()) repair_copies(key, *newest, answers);
  return newest;
}

void ReplicatedMeta::repair_copies(const std::string& key, const MetaValue& newest,
                                   const std::vector<Answer>& answers) {
  std::vector<std::size_t> behind;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const Answer& answer = answers[i];
    if (!answer.is_silent && (!answer.value || answer.value->generation < newest.generation)) {
      behind.push_back(i);
    }
  }
  if (behind.empty()) return;
  // While another write is under way, it will do; the next read looks again.
  const std::shared_ptr<NameLock> name_lock = try_lock_name(key);
  if (!name_lock) return;
  const auto sealed = std::make_shared<const Buffer>(
      seal_meta_value(*core_.config->meta.encryption.key, key, newest.generation, newest.bytes));
  for (const std::size_t i : behind) {
    core_.submit(*core_.meta[i], BackendLane::Priority::kWrite,
                 [this, i, key, sealed, generation = newest.generation, keep = name_lock] {
                   StoreBackend& backend = *core_.meta[i];
                   // A put() may have come between the read and this lock.
                   const auto found = backend.get(as_bytes(key), kMetaTimeout);
                   if (found) {
                     const auto value =
                         *found ? open_meta_value(*core_.config->meta.encryption.key, key, **found)
                                : Result<MetaValue>(fail(Errc::kNotFound, ""));
                     // Best effort: what fails is tried by the next read.
                     if (!value || value->generation < generation) {
                       static_cast<void>(backend.set(as_bytes(key), *sealed, kMetaTimeout));
                     }
                   }
                 });
  }
}

Status ReplicatedMeta::write(std::string_view name, const std::shared_ptr<NameLock>& lock,
                             Call call, std::string_view verb) {
  const auto round = ask(BackendLane::Priority::kWrite, majority(), lock, std::move(call));
  std::size_t succeeded = 0;
  {
    MutexLock round_lock(round->mu);
    succeeded = round->succeeded;
  }
  if (succeeded >= majority()) return {};
  return fail(Errc::kUnavailable,
              std::string(verb) + " of meta value " + std::string(name) + ": " +
                  missing_text(succeeded, majority(), core_.meta.size(), round->last_error()));
}

Status ReplicatedMeta::put(std::string_view name, std::uint64_t generation, Bytes value) {
  QSFS_TRY(core_.check_writable());
  QSFS_TRY(check_name(name));
  if (value.size() > kManifestBytesMax) {
    return fail(Errc::kTooBig, "meta value " + std::string(name) + ": " +
                                   std::to_string(value.size()) + " bytes; at most " +
                                   std::to_string(kManifestBytesMax) + " fit a backend");
  }
  const std::string key = key_of(name);
  const std::shared_ptr<NameLock> lock = lock_name(key);
  const std::vector<Answer> answers = read_copies(key);
  for (const Answer& answer : answers) {
    if (!answer.value || answer.value->generation < generation) continue;
    if (answer.value->generation == generation && std::ranges::equal(answer.value->bytes, value)) {
      continue;
    }
    return fail(Errc::kConflict, "meta value " + std::string(name) + ": generation " +
                                     std::to_string(answer.value->generation) +
                                     " is there already; this is generation " +
                                     std::to_string(generation));
  }
  // Damaged copies are no reason not to write; too few answers are: a majority is then out of
  // reach as well, and nothing should be left behind on a minority.
  const auto heard = std::ranges::count_if(answers, [](const Answer& a) { return !a.is_silent; });
  if (static_cast<std::size_t>(heard) < read_quorum()) {
    return fail(Errc::kUnavailable, "put of meta value " + std::string(name) + ": " +
                                        missing_text(static_cast<std::size_t>(heard), read_quorum(),
                                                     core_.meta.size(), ""));
  }
  const auto sealed = std::make_shared<const Buffer>(
      seal_meta_value(*core_.config->meta.encryption.key, key, generation, value));
  return write(
      name, lock,
      [key, sealed](StoreBackend& backend, Answer&) -> Status {
        QSFS_TRY(backend.set(as_bytes(key), *sealed, kMetaTimeout));
        return {};
      },
      "put");
}

Status ReplicatedMeta::remove(std::string_view name) {
  QSFS_TRY(core_.check_writable());
  QSFS_TRY(check_name(name));
  const std::string key = key_of(name);
  return write(
      name, lock_name(key),
      [key](StoreBackend& backend, Answer&) -> Status {
        QSFS_TRY(backend.remove(as_bytes(key), kMetaTimeout));
        return {};
      },
      "removal");
}

Result<std::vector<std::string>> ReplicatedMeta::list_one(StoreBackend& backend,
                                                          const std::string& key_prefix) {
  std::vector<std::string> names;
  const std::size_t cut = key_of("").size();
  Buffer cursor;
  for (std::size_t page = 0; page < kMetaScanPagesMax; ++page) {
    QSFS_ASSIGN(zdb::ScanPage found, backend.scan(cursor, kMetaTimeout));
    for (const zdb::ScanEntry& entry : found.entries) {
      const std::string_view key = as_text(entry.key);
      if (key.starts_with(key_prefix) && key.size() <= zdb::kKeyLenMax) {
        names.emplace_back(key.substr(cut));
      }
    }
    if (names.size() > kMetaListMax) {
      return fail(Errc::kTooBig, backend.name() + ": over " + std::to_string(kMetaListMax) +
                                     " names under " + key_prefix);
    }
    if (found.cursor.empty()) return names;
    if (found.cursor == cursor) {
      return fail(Errc::kProtocol, backend.name() + ": a scan that does not move on");
    }
    cursor = std::move(found.cursor);
  }
  return fail(Errc::kProtocol, backend.name() + ": a scan without end");
}

Result<std::vector<std::string>> ReplicatedMeta::list(std::string_view prefix) {
  const std::string key_prefix = key_of(prefix);
  // Not by ask(): whole namespaces take their time, and each answer counts.
  const std::size_t count = core_.meta.size();
  std::vector<Result<std::vector<std::string>>> found(count);
  InFlight under_way;
  for (std::size_t i = 0; i < count; ++i) {
    under_way.begin();
    core_.submit(*core_.meta[i], BackendLane::Priority::kWrite, [&, i] {
      found[i] = list_one(*core_.meta[i], key_prefix);
      under_way.end();
    });
  }
  under_way.wait_below(1);
  std::vector<std::string> names;
  std::size_t heard = 0;
  std::string last_error;
  for (auto& one : found) {
    if (!one) {
      last_error = one.error().message();
      continue;
    }
    ++heard;
    names.insert(names.end(), std::make_move_iterator(one->begin()),
                 std::make_move_iterator(one->end()));
  }
  if (heard < read_quorum()) {
    return fail(Errc::kUnavailable, "list of meta values " + std::string(prefix) + ": " +
                                        missing_text(heard, read_quorum(), count, last_error));
  }
  std::ranges::sort(names);
  const auto repeated = std::ranges::unique(names);
  names.erase(repeated.begin(), repeated.end());
  return names;
}

}  // namespace qsfs::zstor
