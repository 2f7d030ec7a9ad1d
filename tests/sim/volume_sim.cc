#include "tests/sim/volume_sim.h"

#include <sys/stat.h>

#include <algorithm>
#include <functional>

#include "base/failpoint.h"
#include "base/log.h"
#include "fs/log/failpoints.h"
#include "fs/volume/failpoints.h"
#include "zdb/backend.h"

namespace qsfs::sim {

namespace {

constexpr std::uint64_t kFileSizeMax = 300'000;
constexpr std::size_t kTraceTail = 40;
constexpr std::string_view kDataDir = "/volume";

constexpr std::array<std::string_view, 16> kArchiveFailpoints = {
    "archive.after_put",         "archive.after_verify",     "archive.before_manifest",
    "archive.after_manifest",    "archive.after_watermark",  "archive.after_head",
    "checkpoint.after_put",      "checkpoint.before_head",   "checkpoint.after_head",
    "cache.evict.before_remove", "cache.evict.after_remove", "heal.after_repair",
    "heal.before_manifest",      "heal.after_manifest",      "heal.after_record",
    "heal.after_delete"};
constexpr std::array<std::string_view, 5> kRecoveryFailpoints = {
    "recover.after_checkpoint", "recover.after_journal", "recover.before_flush",
    "recover.before_marker", "recover.before_marker_removed"};

bool is_archive_failpoint(std::string_view name) {
  return std::ranges::find(kArchiveFailpoints, name) != kArchiveFailpoints.end();
}

std::map<std::string, std::uint64_t, std::less<>>& reached() {
  static std::map<std::string, std::uint64_t, std::less<>> counts;
  return counts;
}

// A backend of one life: after its crash, nothing that the dead still try has an effect.
class MortalBackend final : public zdb::Backend {
 public:
  MortalBackend(std::unique_ptr<zdb::Backend> to, std::shared_ptr<bool> alive)
      : to_(std::move(to)), alive_(std::move(alive)) {}

  Result<Buffer> set(Bytes key, Bytes value, Duration timeout) override {
    if (!*alive_) return dead();
    return to_->set(key, value, timeout);
  }
  Result<std::optional<Buffer>> get(Bytes key, Duration timeout) override {
    if (!*alive_) return dead();
    return to_->get(key, timeout);
  }
  Result<bool> remove(Bytes key, Duration timeout) override {
    if (!*alive_) return dead();
    return to_->remove(key, timeout);
  }
  Result<bool> exists(Bytes key, Duration timeout) override {
    if (!*alive_) return dead();
    return to_->exists(key, timeout);
  }
  Result<std::optional<std::uint64_t>> length(Bytes key, Duration timeout) override {
    if (!*alive_) return dead();
    return to_->length(key, timeout);
  }
  Result<zdb::CheckVerdict> check(Bytes key, Duration timeout) override {
    if (!*alive_) return dead();
    return to_->check(key, timeout);
  }
  Result<zdb::ScanPage> scan(Bytes cursor, Duration timeout) override {
    if (!*alive_) return dead();
    return to_->scan(cursor, timeout);
  }
  Result<zdb::NamespaceInfo> info(Duration timeout) override {
    if (!*alive_) return dead();
    return to_->info(timeout);
  }
  Result<zdb::ServerInfo> server_info(Duration timeout) override {
    if (!*alive_) return dead();
    return to_->server_info(timeout);
  }
  zdb::BackendStats stats() const override { return to_->stats(); }

 private:
  static std::unexpected<Error> dead() { return fail(Errc::kUnavailable, "this life is over"); }

  std::unique_ptr<zdb::Backend> to_;
  std::shared_ptr<bool> alive_;
};

fs::Timespec to_timespec(WallTime at) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(at);
  return {.seconds = seconds.count(),
          .nanoseconds = static_cast<std::uint32_t>((at - seconds).count())};
}

}  // namespace

std::span<const std::string_view> VolumeSim::archive_failpoints() {
  static const std::vector<std::string_view> all = [] {
    std::vector<std::string_view> both(kArchiveFailpoints.begin(), kArchiveFailpoints.end());
    both.insert(both.end(), kRecoveryFailpoints.begin(), kRecoveryFailpoints.end());
    return both;
  }();
  return all;
}

const std::map<std::string, std::uint64_t, std::less<>>& VolumeSim::failpoints_reached() {
  return reached();
}

VolumeSim::VolumeSim(std::uint64_t seed)
    : seed_(seed),
      random_(seed),
      world_random_(seed ^ 0x5eed),
      disk_(std::make_unique<SimDisk>(seed)) {}

VolumeSim::~VolumeSim() { set_failpoint_hook(nullptr); }

void VolumeSim::note(std::string text) {
  trace_ += text + "\n";
  log_.push_back(std::move(text));
  if (log_.size() > kTraceTail) log_.erase(log_.begin());
}

void VolumeSim::broken(std::string what) { throw Broken{std::move(what)}; }

std::string VolumeSim::run() {
  set_failpoint_hook([this](std::string_view name) {
    ++reached()[std::string(name)];
    // Between any two durable effects, too.
    if (!disk_->crashed() && *net_alive_ && is_archive_failpoint(name)) check_redundancy();
    if (disk_->crashed() || name != crash_point_ || --crash_countdown_ != 0) return;
    note("crash at failpoint " + std::string(name));
    *net_alive_ = false;
    disk_->crash(dice(2) == 0 ? CrashKind::kKill : CrashKind::kPowerLoss);
  });
  try {
    make_world();
    open_life(/*from_backends=*/false);
    // Most are short: a new beginning finds more than a long life.
    is_short_ = dice(8) != 0;
    const std::uint64_t lives = is_short_ ? 1 + dice(2) : 2 + dice(4);
    for (std::uint64_t life = 0; life < lives; ++life) play_life();
    // Each life has ended in a start that was looked at; a clean stop is rare among them.
    if (dice(3) == 0) end_life(End::kStop);
    return "";
  } catch (const Broken& broken) {
    std::string text =
        "seed " + std::to_string(seed_) + ": " + broken.what + "\n  the last operations:\n";
    for (const std::string& line : log_) text += "    " + line + "\n";
    net_alive_ = std::make_shared<bool>(false);
    disk_->crash(CrashKind::kKill);
    close_service();
    return text;
  }
}

void VolumeSim::draw_config() {
  const std::string key(64, 'a' + static_cast<char>(dice(6)));
  if (dice(2) == 0) config_head_ = "max_zdb_data_dir_size = 1\n";
  config_tail_ = "[encryption]\nalgorithm = \"AES\"\nkey = \"" + key + "\"\n";
  config_tail_ +=
      std::string("[compression]\nalgorithm = \"") + (dice(3) == 0 ? "none" : "zstd") + "\"\n";
  config_tail_ += "[meta]\ntype = \"zdb\"\n[meta.config]\nprefix = \"sim\"\n";
  config_tail_ +=
      "[meta.config.encryption]\nalgorithm = \"AES\"\nkey = \"" + std::string(64, 'b') + "\"\n";
  config_tail_ += "[cache]\non_full = \"enospc\"\nreadahead = \"64 KiB\"\n";
  config_tail_ += "[archive]\nstripe_size = \"4 KiB\"\nsegment_size = \"64 KiB\"\n";
  // No scrub of its own: whether losses are found without one is what is tested.
  config_tail_ += "dead_after = \"60s\"\nscrub_interval = \"0\"\n";
}

Result<std::shared_ptr<const zstor::Config>> VolumeSim::make_config() const {
  std::string text = "minimal_shards = " + std::to_string(k_) +
                     "\nexpected_shards = " + std::to_string(n_) +
                     "\nredundant_groups = " + std::to_string(n_ - k_) + "\nredundant_nodes = 0\n";
  text += config_head_ + config_tail_;
  for (const std::size_t i : meta_configured_) {
    text += "[[meta.config.backends]]\naddress = \"meta" + std::to_string(i) +
            ":9900\"\nnamespace = \"m\"\n";
  }
  for (const std::size_t i : configured_) {
    text += "[[groups]]\n[[groups.backends]]\naddress = \"data" + std::to_string(i) +
            ":9900\"\nnamespace = \"d\"\n";
  }
  auto parsed = zstor::parse_config(text, zstor::ConfigLimits::for_simulation());
  if (!parsed.config) {
    return fail(Errc::kInvalidArgument, parsed.errors.empty() ? "?" : parsed.errors.front());
  }
  return std::make_shared<const zstor::Config>(std::move(*parsed.config));
}

void VolumeSim::add_data_backend() {
  const std::size_t i = data_.size();
  data_.push_back(std::make_unique<SimZdb>(
      SimZdbOptions{.address = "data" + std::to_string(i) + ":9900", .seed = seed_ + i}, clock_));
  data_.back()->create_namespace(
      "d", {.mode = dice(4) == 0 ? zdb::NamespaceMode::kSequential : zdb::NamespaceMode::kUser});
  configured_.push_back(i);
}

void VolumeSim::add_meta_backend() {
  const std::size_t i = meta_.size();
  meta_.push_back(std::make_unique<SimZdb>(
      SimZdbOptions{.address = "meta" + std::to_string(i) + ":9900", .seed = seed_ + 50 + i},
      clock_));
  meta_.back()->create_namespace("m");
  meta_configured_.push_back(i);
}

void VolumeSim::make_world() {
  k_ = static_cast<unsigned>(1 + dice(4));
  parity_ = static_cast<unsigned>(1 + dice(3));
  n_max_ = n_ = k_ + parity_;
  const std::size_t spare = dice(3);
  for (std::size_t i = 0; i < n_ + spare; ++i) add_data_backend();
  const std::size_t metas = dice(2) == 0 ? 1 : 3;
  for (std::size_t i = 0; i < metas; ++i) add_meta_backend();
  archives_under_faults_ = dice(3) == 0;
  loses_shards_ = dice(3) == 0;
  draw_config();
  auto config = make_config();
  if (!config) broken("configuration: " + config.error().message());
  config_ = std::move(*config);
  oracle_ = std::make_unique<RedundancyOracle>(*config_,
                                               [this](const std::string& address) -> const SimZdb* {
                                                 for (const std::size_t i : configured_) {
                                                   if (data_[i]->address() == address)
                                                     return data_[i].get();
                                                 }
                                                 return nullptr;
                                               });
  note("k " + std::to_string(k_) + " n " + std::to_string(n_) + " data " +
       std::to_string(data_.size()) + " meta " + std::to_string(meta_.size()));
}

Status VolumeSim::try_open(bool from_backends) {
  net_alive_ = std::make_shared<bool>(true);
  const zstor::StoreDependencies dependencies{
      .clock = clock_,
      .random = world_random_,
      .cpu = inline_,
      .io = inline_,
      .make_backend =
          [this](const zdb::BackendOptions& options) -> Result<std::unique_ptr<zdb::Backend>> {
        const std::string& host = options.address.host;
        const auto& servers = host.starts_with("data") ? data_ : meta_;
        const std::size_t index = static_cast<std::size_t>(std::stoul(host.substr(4)));
        return std::make_unique<MortalBackend>(
            servers[index]->make_backend(options.name_space, options.password), net_alive_);
      }};
  auto store = zstor::ObjectStore::open(config_, dependencies);
  if (!store) return std::unexpected(store.error());
  store_ = std::move(*store);
  store_->probe();
  fs::ServiceOptions options;
  options.data_dir = kDataDir;
  options.must_recover = from_backends;
  options.background = false;
  options.meta_cache_bytes = kMiB;
  options.memtable_bytes = kMiB;
  options.journal_bytes = 64 * kKiB;
  options.checkpoint_log_bytes = 160 * kKiB;
  options.full_wait = Duration(0);
  auto service = fs::VolumeService::open(options, {.disk = *disk_,
                                                   .clock = clock_,
                                                   .random = world_random_,
                                                   .store = *store_,
                                                   .fetchers = inline_});
  if (!service) return std::unexpected(service.error());
  service_ = std::move(*service);
  return {};
}

void VolumeSim::close_service() {
  service_.reset();
  store_.reset();
}

void VolumeSim::arm_crash(bool is_recovery) {
  crash_point_.clear();
  if (is_recovery && dice(2) == 0) {
    crash_point_ = kRecoveryFailpoints[dice(kRecoveryFailpoints.size())];
    crash_countdown_ = crash_point_ == "recover.after_journal" ? 1 + dice(4) : 1;
    return;
  }
  switch (dice(4)) {
    case 0: {
      std::vector<std::string_view> all(kArchiveFailpoints.begin(), kArchiveFailpoints.end());
      all.insert(all.end(), fs::kFailpoints.begin(), fs::kFailpoints.end());
      all.insert(all.end(), fs::kVolumeFailpoints.begin(), fs::kVolumeFailpoints.end());
      crash_point_ = all[dice(all.size())];
      crash_countdown_ = 1 + dice(4);
      break;
    }
    case 1:
      // Everything that uses the net must die with the disk; a disk call is noticed after each
      // operation.
      disk_->crash_at_call(1 + dice(400), dice(2) == 0 ? CrashKind::kKill : CrashKind::kPowerLoss);
      break;
    default:
      break;
  }
}

void VolumeSim::open_life(bool from_backends) {
  for (int attempt = 0;; ++attempt) {
    if (attempt < 3) arm_crash(/*is_recovery=*/!kept_disk_);
    // What a first attempt has left goes on by itself, or is a volume: only it insists.
    const Status opened = try_open(from_backends && attempt == 0);
    if (!opened && !has_crashed()) broken("does not open: " + opened.error().message());
    if (!has_crashed()) check_tree();
    if (!has_crashed()) break;
    // Died before anything new happened: nothing may be lost by that.
    note("crashed while opening");
    *net_alive_ = false;
    close_service();
    disk_ = disk_->reopen();
    clock_.advance(std::chrono::seconds(1));
  }
  crash_point_.clear();
  // What a start shows is durable.
  synced_ = history_.size() - 1;
}

void VolumeSim::check_tree() {
  if (history_.empty()) {
    // The root was made at the clock's present.
    ModelFs empty(to_timespec(clock_.wall()));
    history_.push_back(empty);
  }
  if (const std::string reason = service_->read_only_reason(); !reason.empty())
    broken("read-only: " + reason);
  auto actual = image_of(service_->volume());
  if (has_crashed()) return;
  if (!actual) {
    const auto [first, last] = fs::tag_range('s');
    for (const auto it = service_->meta().iterate(first, last); it->valid(); it->next()) {
      const auto row = fs::SegmentRow::parse(it->value());
      note("segment " + std::to_string(load_be<std::uint32_t>(it->key().data() + 1)) + " state " +
           (row ? std::to_string(static_cast<int>(row->state)) : "?"));
    }
    note("watermark " + std::to_string(fs::number(service_->archiver().status().watermark)));
    broken("the tree cannot be read: " + actual.error().message());
  }
  std::string nearest;
  if (in_doubt_) {
    nearest = first_difference(in_doubt_->image(), *actual, CompareTimes::kNo);
    if (nearest.empty()) {
      history_.push_back(*in_doubt_);
      in_doubt_.reset();
      note("the operation in doubt was done");
      return;
    }
  }
  const std::size_t oldest = kept_disk_ ? synced_ : remote_synced_;
  for (std::size_t i = history_.size(); i-- > oldest;) {
    const std::string difference =
        first_difference(history_[i].image(), *actual, CompareTimes::kNo);
    if (difference.empty()) {
      note("came back at state " + std::to_string(i) + " of " +
           std::to_string(history_.size() - 1));
      history_.resize(i + 1, history_.front());
      in_doubt_.reset();
      return;
    }
    if (i + 1 == history_.size()) nearest = difference;
  }
  broken("the tree is none of the " + std::to_string(history_.size() - oldest) +
         " that it may be: " + nearest);
}

void VolumeSim::play_life() {
  arm_crash();
  const std::uint64_t steps = is_short_ ? 5 + dice(20) : 10 + dice(60);
  for (std::uint64_t i = 0; i < steps && !has_crashed(); ++i) {
    step();
    check_redundancy();
    if (!redundancy_broken_.empty()) broken(redundancy_broken_);
  }
  mend_backends();
  if (has_crashed()) {
    *net_alive_ = false;
    end_life(End::kKill);
    return;
  }
  const std::uint64_t how = dice(10);
  end_life(how < 2   ? End::kStop
           : how < 4 ? End::kKill
           : how < 7 ? End::kPowerLoss
                     : End::kLoseDisk);
}

void VolumeSim::end_life(End end) {
  if (end == End::kLoseDisk && is_disk_needed_) end = End::kPowerLoss;
  const bool lose = end == End::kLoseDisk;
  if (!has_crashed()) {
    note(end == End::kStop        ? "stop"
         : end == End::kKill      ? "kill"
         : end == End::kPowerLoss ? "power loss"
                                  : "lose the disk");
    if (end == End::kStop) {
      const Status stopped = service_->stop();
      if (!has_crashed() && !stopped) broken("stop: " + stopped.error().message());
      if (stopped) synced_ = history_.size() - 1;
    }
    *net_alive_ = false;
    if (!has_crashed())
      disk_->crash(end == End::kPowerLoss ? CrashKind::kPowerLoss : CrashKind::kKill);
  }
  close_service();
  crash_point_.clear();
  clock_.advance(std::chrono::seconds(dice(100)));
  if (!lose) {
    disk_ = disk_->reopen();
    open_life(/*from_backends=*/false);
    remote_synced_ = std::min(remote_synced_, history_.size() - 1);
    return;
  }
  disk_ = std::make_unique<SimDisk>(seed_ + dice(1'000'000));
  // Those are of another owner: a roll-back to it is told, and not undone.
  all_meta_before_.clear();
  wants_scrub_ = !wiped_.empty();
  kept_disk_ = false;
  break_backends();
  open_life(is_on_backends_);
  mend_backends();
  kept_disk_ = true;
  // What came back is what there is, here and there.
  history_.erase(history_.begin(), history_.end() - 1);
  synced_ = remote_synced_ = 0;
}

void VolumeSim::happen_to_backends() {
  switch (dice(19)) {
    case 0:
      let_heal();
      break;
    case 1:
      outlive_backend();
      break;
    case 2:
      flap();
      break;
    case 3:
      heal_until_whole();
      break;
    case 4:
      scrub_days();
      break;
    case 5:
      outage();
      break;
    case 6:
    case 7:
      change_configuration();
      break;
    case 8:
      roll_back_meta();
      break;
    case 10:
      live_with_sick_backends();
      break;
    case 11:
      power_cut_all();
      break;
    case 12:
    case 13:
      change_meta_backends();
      break;
    case 14:
      heal_under_faults();
      break;
    case 15:
      roll_back_all_meta();
      break;
    case 9: {
      const std::size_t chosen = configured_[dice(configured_.size())];
      snapshots_[chosen] = data_[chosen]->take_snapshot();
      break;
    }
    default:
      break;
  }
}

void VolumeSim::step() {
  clock_.advance(std::chrono::milliseconds(dice(3000)));
  if (is_disk_needed_) {
    heal_until_whole();
    return;
  }
  switch (dice(23)) {
    case 22:
      happen_to_backends();
      break;
    case 20:
      archive_under_faults();
      break;
    case 21:
      if (dice(4) == 0) lose_shards();
      break;
    case 0:
      sync_local();
      break;
    case 1:
      sync_remote();
      break;
    case 2: {
      const auto evicted = service_->evict_all();
      if (has_crashed()) return;
      if (!evicted) broken("evict: " + evicted.error().message());
      note("evicted " + std::to_string(*evicted));
      break;
    }
    case 3: {
      const Status flushed = service_->meta().flush();
      if (!has_crashed() && !flushed) broken("flush: " + flushed.error().message());
      break;
    }
    case 4: {
      const Status kept = service_->housekeep();
      if (!has_crashed() && !kept) broken("housekeep: " + kept.error().message());
      break;
    }
    case 5:
      break_backends();
      read_something();
      mend_backends();
      break;
    case 6: {
      // One segment at a time, as the threads would.
      const auto stepped = service_->archiver().step();
      if (!has_crashed() && !stepped) broken("archive: " + stepped.error().message());
      break;
    }
    case 7:
    case 8:
      read_something();
      break;
    default:
      change();
      break;
  }
}

void VolumeSim::read_something() {
  const std::vector<std::string> files = paths(S_IFREG);
  if (files.empty()) return;
  const std::string& path = files[dice(files.size())];
  const std::uint64_t offset = dice(30'000);
  const std::uint64_t length = 1 + dice(60'000);
  ModelFs& model = history_.back();
  const auto model_ino = model_inode(model, path);
  const auto ino = real_inode(path);
  if (has_crashed()) return;
  if (!ino || !model_ino) broken(path + " is gone");
  const auto want = model.read(*model_ino, offset, length);
  Buffer have(length);
  const auto got = service_->volume().read(*ino, offset, have);
  if (has_crashed()) return;
  note("read " + path + " @" + std::to_string(offset) + "+" + std::to_string(length));
  if (!want) broken("the model cannot read " + path);
  if (!got) broken("read of " + path + ": " + got.error().message());
  have.resize(*got);
  if (have != *want) broken("read of " + path + " gives other bytes");
}

void VolumeSim::sync_local() {
  const Status synced = service_->sync_local();
  if (has_crashed()) return;
  if (!synced) broken("sync: " + synced.error().message());
  synced_ = history_.size() - 1;
  note("synced");
}

void VolumeSim::sync_remote() {
  const Status synced = service_->sync_local();
  if (has_crashed()) return;
  if (!synced) broken("sync: " + synced.error().message());
  synced_ = history_.size() - 1;
  const auto sealed = service_->log().seal(/*even_internal=*/false);
  if (has_crashed()) return;
  if (!sealed) broken("seal: " + sealed.error().message());
  while (service_->archiver().status().segments_queued > 0) {
    const auto stepped = service_->archiver().step();
    if (has_crashed()) return;
    if (!stepped) broken("archive: " + stepped.error().message());
    if (!*stepped) broken("the archiver has a queue and nothing to do");
  }
  if (service_->archiver().status().watermark <= *sealed) broken("the watermark did not move");
  is_on_backends_ = true;
  synced_ = remote_synced_ = history_.size() - 1;
  note("synced to the backends");
}

}  // namespace qsfs::sim
