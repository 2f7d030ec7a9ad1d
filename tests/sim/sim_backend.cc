#include "tests/sim/sim_backend.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace qsfs::sim {
namespace {

using zdb::BackendStats;
using zdb::CheckVerdict;
using zdb::NamespaceInfo;
using zdb::NamespaceMode;
using zdb::ScanPage;
using zdb::ServerInfo;

// As long as the cursor of 0-db; the first eight bytes say where.
constexpr std::size_t kCursorLen = 17;

std::string key_text(Bytes key) { return std::string(as_text(key)); }

Buffer key_bytes(std::string_view key) {
  const Bytes bytes = as_bytes(key);
  return Buffer(bytes.begin(), bytes.end());
}

std::string id_text(std::uint64_t id) {
  std::string text(zdb::kSequentialKeyLen, '\0');
  store_le(reinterpret_cast<std::byte*>(text.data()), id);
  return text;
}

Status check_key(Bytes key) {
  if (key.size() > zdb::kKeyLenMax) return fail(Errc::kTooBig, "key too long");
  if (key.empty()) return fail(Errc::kInvalidArgument, "Invalid argument");
  return {};
}

// Payload that a call moved.
struct Moved {
  std::size_t sent = 0;
  std::size_t received = 0;
};

}  // namespace

class SimZdb::Snapshot {
 public:
  explicit Snapshot(Namespaces namespaces) : namespaces_(std::move(namespaces)) {}
  const Namespaces& namespaces() const { return namespaces_; }

 private:
  Namespaces namespaces_;
};

class SimBackend final : public zdb::Backend {
 public:
  SimBackend(SimZdb& server, std::string name_space, std::string password)
      : server_(server), name_space_(std::move(name_space)), password_(std::move(password)) {}

  Result<Buffer> set(Bytes key, Bytes value, Duration timeout) override {
    Buffer stored_key;
    const Status status = [&]() -> Status {
      if (key.size() > zdb::kKeyLenMax) return fail(Errc::kTooBig, "key too long");
      if (value.size() > zdb::kValueLenMax) return fail(Errc::kTooBig, "value too long");
      SimZdb::Call call = make_call("SET", timeout);
      call.is_write = true;
      call.payload_bytes = value.size();
      return run(call, [&](SimZdb::Namespace& space, SimZdb::Call& running)
                           QSFS_NO_THREAD_SAFETY_ANALYSIS {
                             return server_.set_locked(running, space, key, value, stored_key);
                           });
    }();
    return finish(status, std::move(stored_key), {.sent = value.size()});
  }

  Result<std::optional<Buffer>> get(Bytes key, Duration timeout) override {
    std::optional<Buffer> value;
    const Status status = with_key(make_call("GET", timeout), key,
                                   [&](SimZdb::Namespace& space, SimZdb::Call& running)
                                       QSFS_NO_THREAD_SAFETY_ANALYSIS -> Status {
                                         QSFS_TRY(server_.get_locked(space, key_text(key), value));
                                         running.payload_bytes = value ? value->size() : 0;
                                         return {};
                                       });
    const std::size_t received = value ? value->size() : 0;
    return finish(status, std::move(value), {.received = received});
  }

  Result<bool> remove(Bytes key, Duration timeout) override {
    bool removed = false;
    SimZdb::Call call = make_call("DEL", timeout);
    call.is_write = true;
    const Status status = with_key(call, key,
                                   [&](SimZdb::Namespace& space, SimZdb::Call& running)
                                       QSFS_NO_THREAD_SAFETY_ANALYSIS -> Status {
                                         removed =
                                             server_.remove_locked(running, space, key_text(key));
                                         return {};
                                       });
    return finish(status, std::move(removed));
  }

  Result<bool> exists(Bytes key, Duration timeout) override {
    bool found = false;
    const Status status = with_key(make_call("EXISTS", timeout), key,
                                   [&](SimZdb::Namespace& space, SimZdb::Call&) -> Status {
                                     found = space.entries.contains(key_text(key));
                                     return {};
                                   });
    return finish(status, std::move(found));
  }

  Result<std::optional<std::uint64_t>> length(Bytes key, Duration timeout) override {
    std::optional<std::uint64_t> len;
    const Status status = with_key(make_call("LENGTH", timeout), key,
                                   [&](SimZdb::Namespace& space, SimZdb::Call&) -> Status {
                                     const auto at = space.entries.find(key_text(key));
                                     if (at != space.entries.end()) len = at->second.value->size();
                                     return {};
                                   });
    return finish(status, std::move(len));
  }

  Result<CheckVerdict> check(Bytes key, Duration timeout) override {
    CheckVerdict verdict = CheckVerdict::kMissing;
    const Status status = with_key(make_call("CHECK", timeout), key,
                                   [&](SimZdb::Namespace& space, SimZdb::Call&) -> Status {
                                     const auto at = space.entries.find(key_text(key));
                                     if (at == space.entries.end()) return {};
                                     verdict = !at->second.is_readable ? CheckVerdict::kUnreadable
                                               : at->second.is_intact  ? CheckVerdict::kGood
                                                                       : CheckVerdict::kCorrupt;
                                     return {};
                                   });
    return finish(status, std::move(verdict));
  }

  Result<ScanPage> scan(Bytes cursor, Duration timeout) override {
    ScanPage page;
    const Status status =
        run(make_call("SCAN", timeout),
            [&](SimZdb::Namespace& space, SimZdb::Call&) QSFS_NO_THREAD_SAFETY_ANALYSIS -> Status {
              std::uint64_t after = 0;
              if (!cursor.empty()) {
                if (cursor.size() != kCursorLen) {
                  return fail(Errc::kInvalidArgument, "Invalid key format");
                }
                after = load_le<std::uint64_t>(cursor.data());
              }
              server_.scan_locked(space, after, page);
              return {};
            });
    return finish(status, std::move(page));
  }

  Result<NamespaceInfo> info(Duration timeout) override {
    NamespaceInfo info;
    SimZdb::Call call = make_call("NSINFO", timeout);
    call.is_data = false;
    const Status status = server_.run(call,
                                      [&](SimZdb::Namespace& space, SimZdb::Call&)
                                          QSFS_NO_THREAD_SAFETY_ANALYSIS -> Status {
                                            info = server_.info_locked(space);
                                            return {};
                                          });
    return finish(status, std::move(info));
  }

  Result<ServerInfo> server_info(Duration timeout) override {
    ServerInfo info;
    SimZdb::Call call = make_call("INFO", timeout);
    call.is_data = false;
    const Status status =
        run(call, [&](SimZdb::Namespace&, SimZdb::Call&) QSFS_NO_THREAD_SAFETY_ANALYSIS -> Status {
          info.instance_id = server_.instance_id_;
          const Duration up = server_.clock_.now() - server_.started_;
          info.uptime_s = static_cast<std::uint64_t>(
              std::chrono::duration_cast<std::chrono::seconds>(up).count());
          return {};
        });
    return finish(status, std::move(info));
  }

  BackendStats stats() const override {
    const MutexLock lock(mu_);
    return stats_;
  }

 private:
  SimZdb::Call make_call(std::string_view command, Duration timeout) {
    return {
        .command = command, .name_space = name_space_, .password = password_, .timeout = timeout};
  }

  Status with_key(const SimZdb::Call& call, Bytes key, const SimZdb::Action& action) {
    QSFS_TRY(check_key(key));
    return run(call, action);
  }

  Status run(const SimZdb::Call& call, const SimZdb::Action& action) {
    const MonotonicTime start = server_.clock_.now();
    const Status status = server_.run(call, action);
    const Duration took = server_.clock_.now() - start;
    const MutexLock lock(mu_);
    stats_.latency_ewma += (took - stats_.latency_ewma) / 8;
    return status;
  }

  template <class T>
  Result<T> finish(const Status& status, T&& value, Moved moved = {}) {
    const MonotonicTime now = server_.clock_.now();
    const MutexLock lock(mu_);
    ++stats_.requests;
    stats_.bytes_sent += moved.sent;
    if (status) {
      stats_.bytes_received += moved.received;
      return std::forward<T>(value);
    }
    Error error = status.error();
    error.context = "backend " + server_.address() + "/" + name_space_ + ": " + error.context;
    ++stats_.errors;
    stats_.last_error = error.message();
    stats_.last_error_time = now;
    return std::unexpected(std::move(error));
  }

  SimZdb& server_;
  const std::string name_space_;
  const std::string password_;

  mutable Mutex mu_;
  BackendStats stats_ QSFS_GUARDED_BY(mu_);
};

SimZdb::SimZdb(SimZdbOptions options, SimClock& clock)
    : options_(std::move(options)), clock_(clock), random_(options_.seed) {
  const MutexLock lock(mu_);
  new_instance_locked();
}

SimZdb::~SimZdb() = default;

std::unique_ptr<zdb::Backend> SimZdb::make_backend(const std::string& name_space,
                                                   const std::string& password) {
  return std::make_unique<SimBackend>(*this, name_space, password);
}

// Calls.

Status SimZdb::run(Call call, const Action& action) {
  if (call_hook_) call_hook_(call.command);
  const MutexLock lock(mu_);
  ++totals_.calls;
  const auto noun = [&](Error error) { return with_context(std::move(error), call.command); };
  if (auto status = reach_locked(call); !status) return noun(std::move(status).error());
  Namespace* const space = find_namespace_locked(call.name_space);
  if (space == nullptr || faults_.namespace_gone) {
    return noun({.code = Errc::kNotFound, .context = "Namespace not found"});
  }
  if (space->options.password != call.password && !space->options.password.empty()) {
    return noun({.code = Errc::kAccess, .context = "Access denied"});
  }
  if (auto status = check_faults_locked(call); !status) return noun(std::move(status).error());
  if (auto status = action(*space, call); !status) return noun(std::move(status).error());
  if (auto status = spend_locked(call); !status) return noun(std::move(status).error());
  const bool is_nth = faults_.drop_ack_nth > 0 && --faults_.drop_ack_nth == 0;
  if (is_nth || chance_locked(faults_.drop_ack_probability)) {
    return noun({.code = Errc::kUnavailable, .context = "connection lost before the reply"});
  }
  return {};
}

Status SimZdb::reach_locked(const Call& call) {
  if (call.timeout <= Duration::zero()) return fail(Errc::kTimeout, "no time");
  if (faults_.down) return fail(Errc::kUnavailable, "connection refused");
  if (faults_.half_open) {
    clock_.advance(call.timeout);
    return fail(Errc::kTimeout, "no answer in time");
  }
  const bool is_nth = faults_.fail_nth > 0 && --faults_.fail_nth == 0;
  if (is_nth || chance_locked(faults_.fail_probability)) {
    return fail(faults_.error, "simulated failure");
  }
  if (faults_.wrong_password) return fail(Errc::kAccess, "Access denied");
  return {};
}

Status SimZdb::check_faults_locked(const Call& call) const {
  if (faults_.frozen && call.is_data) {
    return fail(Errc::kLocked, "Namespace is temporarily frozen (read-write disabled)");
  }
  if (!call.is_write) return {};
  if (faults_.locked) return fail(Errc::kLocked, "Namespace is temporarily locked (read-only)");
  if (faults_.disk_error) return fail(Errc::kIo, "Cannot write data right now");
  return {};
}

Status SimZdb::spend_locked(const Call& call) {
  Duration cost = faults_.latency;
  if (faults_.bytes_per_second > 0) {
    const double seconds =
        static_cast<double>(call.payload_bytes) / static_cast<double>(faults_.bytes_per_second);
    cost += Duration(static_cast<std::int64_t>(seconds * 1e9));
  }
  clock_.advance(std::min(cost, call.timeout));
  if (cost <= call.timeout) return {};
  return fail(Errc::kTimeout, "no answer in time");
}

bool SimZdb::chance_locked(double probability) {
  if (probability <= 0) return false;
  constexpr double kRange = 9007199254740992.0;  // 2^53: what a double holds exactly.
  return static_cast<double>(random_.next_u64() >> 11) / kRange < probability;
}

Status SimZdb::set_locked(const Call& call, Namespace& space, Bytes key, Bytes value,
                          Buffer& stored_key) {
  const bool is_sequential = space.options.mode == NamespaceMode::kSequential;
  const bool is_allocation = is_sequential && key.empty();
  if (key.empty() && !is_sequential) {
    return fail(Errc::kInvalidArgument, "Invalid argument, key needed");
  }
  const std::string name = is_allocation ? id_text(space.next_id) : key_text(key);
  const auto at = space.entries.find(name);
  Entry* const old = at == space.entries.end() ? nullptr : &at->second;
  if (is_sequential && !is_allocation && old == nullptr) {
    return fail(Errc::kInvalidArgument, "Invalid key, only update authorized");
  }
  stored_key = key_bytes(name);
  if (old != nullptr && old->is_intact && old->is_readable &&
      std::ranges::equal(*old->value, value)) {
    return {};
  }
  QSFS_TRY(check_space_locked(space, value.size(), old));
  ++totals_.sets;
  remember_locked(call.name_space, space, name);
  // Updates use up an id too, as in the original.
  if (is_sequential) ++space.next_id;
  if (chance_locked(faults_.lie_probability)) {
    ++totals_.lies;
    return {};
  }
  totals_.bytes_written += value.size();
  Entry entry;
  entry.value = std::make_shared<const Buffer>(value.begin(), value.end());
  entry.unix_time_s = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.wall()).count());
  // An update keeps its place in sequential mode, and moves to the end in user mode.
  entry.order = is_sequential && old != nullptr ? old->order : space.next_order++;
  put_entry(space, name, std::move(entry));
  return {};
}

Status SimZdb::check_space_locked(const Namespace& space, std::size_t value_len,
                                  const Entry* replaced) const {
  const std::uint64_t freed = replaced == nullptr ? 0 : replaced->value->size();
  const std::uint64_t limit = space.options.data_limit_bytes;
  const bool is_over_limit = limit > 0 && space.data_bytes + value_len > limit + freed;
  if (faults_.full || is_over_limit || value_len > disk_free_locked() + freed) {
    return fail(Errc::kNoSpace, "No space left on this namespace");
  }
  return {};
}

bool SimZdb::remove_locked(const Call& call, Namespace& space, const std::string& key) {
  if (!space.entries.contains(key)) return false;
  remember_locked(call.name_space, space, key);
  return erase_entry(space, key);
}

Status SimZdb::get_locked(Namespace& space, const std::string& key, std::optional<Buffer>& out) {
  const auto at = space.entries.find(key);
  if (at == space.entries.end()) return {};
  const Entry& entry = at->second;
  if (!entry.is_readable) return fail(Errc::kIo, "Internal Error");
  ++totals_.gets;
  totals_.bytes_read += entry.value->size();
  out = chance_locked(faults_.corrupt_read_probability)
            ? corrupted_locked(space, key, *entry.value, faults_.corruption)
            : *entry.value;
  return {};
}

void SimZdb::scan_locked(const Namespace& space, std::uint64_t after, ScanPage& page) const {
  auto at = space.by_order.upper_bound(after);
  while (at != space.by_order.end() && page.entries.size() < options_.scan_page_entries) {
    const Entry& entry = space.entries.at(at->second);
    page.entries.push_back({.key = key_bytes(at->second),
                            .payload_bytes = entry.value->size(),
                            .unix_time_s = entry.unix_time_s});
    after = at->first;
    ++at;
  }
  if (at == space.by_order.end()) return;
  page.cursor.resize(kCursorLen);
  store_le(page.cursor.data(), after);
}

NamespaceInfo SimZdb::info_locked(const Namespace& space) const {
  NamespaceInfo info;
  info.mode = space.options.mode;
  info.entries = space.entries.size();
  info.data_bytes = space.data_bytes;
  info.data_limit_bytes = space.options.data_limit_bytes;
  info.data_disk_free_bytes = faults_.full ? 0 : disk_free_locked();
  info.index_disk_free_bytes = info.data_disk_free_bytes;
  info.free_bytes = info.data_disk_free_bytes;
  if (info.data_limit_bytes > 0) {
    const std::uint64_t left =
        info.data_limit_bytes - std::min(info.data_limit_bytes, info.data_bytes);
    info.free_bytes = std::min(info.free_bytes, left);
  }
  info.locked = faults_.locked || faults_.frozen;
  info.has_password = !space.options.password.empty();
  info.is_public = !info.has_password;
  return info;
}

std::uint64_t SimZdb::disk_free_locked() const {
  std::uint64_t used = 0;
  for (const auto& [name, space] : namespaces_) used += space.data_bytes;
  return options_.disk_bytes - std::min(options_.disk_bytes, used);
}

// Entries.

void SimZdb::put_entry(Namespace& space, const std::string& key, Entry entry) {
  erase_entry(space, key);
  space.data_bytes += entry.value->size();
  space.by_order.emplace(entry.order, key);
  space.entries.emplace(key, std::move(entry));
}

bool SimZdb::erase_entry(Namespace& space, const std::string& key) {
  const auto at = space.entries.find(key);
  if (at == space.entries.end()) return false;
  space.data_bytes -= at->second.value->size();
  space.by_order.erase(at->second.order);
  space.entries.erase(at);
  return true;
}

void SimZdb::remember_locked(const std::string& name, const Namespace& space,
                             const std::string& key) {
  ++changes_;
  const MonotonicTime now = clock_.now();
  while (!unsynced_.empty() && now - unsynced_.front().when >= options_.writeback_after) {
    unsynced_.pop_front();
  }
  const auto at = space.entries.find(key);
  unsynced_.push_back(
      {.when = now,
       .name_space = name,
       .key = key,
       .before = at == space.entries.end() ? std::nullopt : std::optional<Entry>(at->second),
       .next_id_before = space.next_id});
}

void SimZdb::forget_undo_locked(const std::string& name) {
  std::erase_if(unsynced_, [&](const Undo& undo) { return undo.name_space == name; });
}

Buffer SimZdb::corrupted_locked(const Namespace& space, const std::string& key, const Buffer& value,
                                Corruption kind) {
  Buffer bad = value;
  switch (kind) {
    case Corruption::kTruncate:
      if (!bad.empty()) bad.resize(random_.below(bad.size()));
      return bad;
    case Corruption::kZero:
      std::ranges::fill(bad, std::byte{0});
      return bad;
    case Corruption::kGarbage:
      bad.resize(1 + random_.below(2 * bad.size() + 1));
      random_.fill(bad);
      return bad;
    case Corruption::kOtherValue: {
      auto other = space.by_order.upper_bound(space.entries.at(key).order);
      if (other == space.by_order.end()) other = space.by_order.begin();
      if (other->second != key) return *space.entries.at(other->second).value;
      break;
    }
    case Corruption::kBitFlip:
      break;
  }
  if (bad.empty()) return Buffer(1);
  const std::uint64_t bit = random_.below(bad.size() * 8);
  bad[bit / 8] ^= std::byte{1} << (bit % 8);
  return bad;
}

SimZdb::Namespace* SimZdb::find_namespace_locked(const std::string& name) {
  const auto at = namespaces_.find(name);
  return at == namespaces_.end() ? nullptr : &at->second;
}

const SimZdb::Namespace* SimZdb::find_namespace_locked(const std::string& name) const {
  const auto at = namespaces_.find(name);
  return at == namespaces_.end() ? nullptr : &at->second;
}

SimZdb::Entry* SimZdb::find_locked(const std::string& name, Bytes key) {
  Namespace* const space = find_namespace_locked(name);
  if (space == nullptr) return nullptr;
  const auto at = space->entries.find(key_text(key));
  return at == space->entries.end() ? nullptr : &at->second;
}

// Events.

void SimZdb::create_namespace(const std::string& name, const SimNamespaceOptions& options) {
  const MutexLock lock(mu_);
  ++changes_;
  forget_undo_locked(name);
  namespaces_[name] = Namespace{.options = options};
}

void SimZdb::drop_namespace(const std::string& name) {
  const MutexLock lock(mu_);
  ++changes_;
  forget_undo_locked(name);
  namespaces_.erase(name);
}

void SimZdb::new_instance_locked() {
  instance_id_ = std::to_string(random_.next_u64());
  started_ = clock_.now();
}

void SimZdb::restart() {
  const MutexLock lock(mu_);
  new_instance_locked();
}

void SimZdb::sync() {
  const MutexLock lock(mu_);
  unsynced_.clear();
}

void SimZdb::power_cut() {
  const MutexLock lock(mu_);
  ++changes_;
  const MonotonicTime now = clock_.now();
  while (!unsynced_.empty()) {
    Undo undo = std::move(unsynced_.back());
    unsynced_.pop_back();
    if (now - undo.when >= options_.writeback_after) continue;
    Namespace* const space = find_namespace_locked(undo.name_space);
    QSFS_CHECK(space != nullptr);
    space->next_id = undo.next_id_before;
    if (undo.before) {
      put_entry(*space, undo.key, std::move(*undo.before));
    } else {
      erase_entry(*space, undo.key);
    }
  }
  new_instance_locked();
}

void SimZdb::wipe() {
  const MutexLock lock(mu_);
  ++changes_;
  unsynced_.clear();
  for (auto& [name, space] : namespaces_) {
    const SimNamespaceOptions kept = space.options;
    space = Namespace{.options = kept};
  }
  new_instance_locked();
}

std::shared_ptr<const SimZdb::Snapshot> SimZdb::take_snapshot() const {
  const MutexLock lock(mu_);
  return std::make_shared<const Snapshot>(namespaces_);
}

void SimZdb::roll_back(const Snapshot& snapshot) {
  const MutexLock lock(mu_);
  ++changes_;
  unsynced_.clear();
  namespaces_ = snapshot.namespaces();
  new_instance_locked();
}

bool SimZdb::corrupt_stored(const std::string& name_space, Bytes key, Corruption kind) {
  const MutexLock lock(mu_);
  ++changes_;
  Entry* const entry = find_locked(name_space, key);
  if (entry == nullptr) return false;
  Namespace& space = *find_namespace_locked(name_space);
  auto bad =
      std::make_shared<const Buffer>(corrupted_locked(space, key_text(key), *entry->value, kind));
  space.data_bytes = space.data_bytes - entry->value->size() + bad->size();
  entry->value = std::move(bad);
  // The server's own checksum goes with the value: another key's is as good as its own.
  if (kind != Corruption::kOtherValue) entry->is_intact = false;
  return true;
}

bool SimZdb::make_unreadable(const std::string& name_space, Bytes key) {
  const MutexLock lock(mu_);
  ++changes_;
  Entry* const entry = find_locked(name_space, key);
  if (entry != nullptr) entry->is_readable = false;
  return entry != nullptr;
}

bool SimZdb::lose(const std::string& name_space, Bytes key) {
  const MutexLock lock(mu_);
  ++changes_;
  Namespace* const space = find_namespace_locked(name_space);
  return space != nullptr && erase_entry(*space, key_text(key));
}

std::uint64_t SimZdb::lose_randomly(double probability) {
  const MutexLock lock(mu_);
  ++changes_;
  std::uint64_t lost = 0;
  for (auto& [name, space] : namespaces_) {
    // In the order of writing: the order of a hash table is nobody's to rely on.
    std::vector<std::string> chosen;
    for (const auto& [order, key] : space.by_order) {
      if (chance_locked(probability)) chosen.push_back(key);
    }
    for (const std::string& key : chosen) erase_entry(space, key);
    lost += chosen.size();
  }
  return lost;
}

std::uint64_t SimZdb::rot_randomly(double probability, Corruption kind) {
  std::vector<std::pair<std::string, Buffer>> chosen;
  {
    const MutexLock lock(mu_);
    for (const auto& [name, space] : namespaces_) {
      for (const auto& [order, key] : space.by_order) {
        if (chance_locked(probability)) chosen.emplace_back(name, key_bytes(key));
      }
    }
  }
  for (const auto& [name, key] : chosen) static_cast<void>(corrupt_stored(name, key, kind));
  return chosen.size();
}

// Oracles.

std::vector<Buffer> SimZdb::keys(const std::string& name_space) const {
  const MutexLock lock(mu_);
  std::vector<Buffer> keys;
  const Namespace* const space = find_namespace_locked(name_space);
  if (space == nullptr) return keys;
  for (const auto& [order, key] : space->by_order) keys.push_back(key_bytes(key));
  return keys;
}

std::optional<Buffer> SimZdb::value(const std::string& name_space, Bytes key) const {
  const MutexLock lock(mu_);
  const Namespace* const space = find_namespace_locked(name_space);
  if (space == nullptr) return std::nullopt;
  const auto at = space->entries.find(key_text(key));
  if (at == space->entries.end() || !at->second.is_readable) return std::nullopt;
  return *at->second.value;
}

std::shared_ptr<const Buffer> SimZdb::peek(const std::string& name_space, Bytes key) const {
  const MutexLock lock(mu_);
  const Namespace* const space = find_namespace_locked(name_space);
  if (space == nullptr) return nullptr;
  const auto at = space->entries.find(key_text(key));
  if (at == space->entries.end() || !at->second.is_readable) return nullptr;
  return at->second.value;
}

std::uint64_t SimZdb::changes() const {
  const MutexLock lock(mu_);
  return changes_;
}

std::uint64_t SimZdb::entry_count(const std::string& name_space) const {
  const MutexLock lock(mu_);
  const Namespace* const space = find_namespace_locked(name_space);
  return space == nullptr ? 0 : space->entries.size();
}

std::uint64_t SimZdb::data_bytes(const std::string& name_space) const {
  const MutexLock lock(mu_);
  const Namespace* const space = find_namespace_locked(name_space);
  return space == nullptr ? 0 : space->data_bytes;
}

std::string SimZdb::instance_id() const {
  const MutexLock lock(mu_);
  return instance_id_;
}

SimTotals SimZdb::totals() const {
  const MutexLock lock(mu_);
  return totals_;
}

}  // namespace qsfs::sim
