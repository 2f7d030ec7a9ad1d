// What happens to many backends of a simulated volume at once, to those of its metadata, and to
// some of them while others are being repaired.
#include <algorithm>

#include "tests/sim/volume_sim.h"
#include "zstor/head.h"

namespace qsfs::sim {
namespace {

// As long as a foreground read may take, whatever the backends do (P8).
constexpr Duration kReadDeadline = std::chrono::seconds(10);
// Longer than the healer leaves a backend alone that it has just looked at.
constexpr Duration kCheckAgain = std::chrono::minutes(11);
constexpr std::size_t kMetaBackendsMax = 4;

}  // namespace

std::size_t VolumeSim::meta_budget() const {
  if (meta_was_behind_ || is_disk_needed_) return 0;
  const std::size_t count = meta_configured_.size();
  return count - (count / 2 + 1);
}

void VolumeSim::live_with_sick_backends() {
  const std::size_t budget = loss_budget();
  for (std::size_t i = 0; i < budget; ++i) {
    SimZdb& server = any_data();
    SimFaults& faults = server.faults();
    switch (dice(3)) {
      case 0:
        faults.half_open = true;
        break;
      case 1:
        faults.latency = std::chrono::milliseconds(500 + dice(2000));
        break;
      default:
        faults.bytes_per_second = 4000 + dice(20'000);
        break;
    }
    note(server.address() + (faults.half_open ? " hangs" : " is slow"));
  }
  if (budget == 0) return;
  // Calls follow one another here: that one hangs is found by probes, not by other reads meanwhile.
  for (int i = 0; i < 6; ++i) {
    clock_.advance(std::chrono::seconds(1));
    store_->probe();
  }
  const auto took = [&](const auto& call) {
    const MonotonicTime began = clock_.now();
    call();
    return clock_.now() - began;
  };
  const std::uint64_t rounds = 1 + dice(3);
  for (std::uint64_t i = 0; i < rounds && !has_crashed(); ++i) {
    if (took([&] { read_something(); }) > kReadDeadline) broken("P8: a read took too long");
    if (has_crashed()) break;
    if (took([&] { change(); }) > Duration{}) broken("P8: a change has waited for a backend");
    if (has_crashed()) break;
    if (took([&] { sync_local(); }) > Duration{}) broken("P8: a sync has waited for a backend");
  }
  if (archives_under_faults_ && !has_crashed()) {
    may_be_degraded_ = true;
    const auto stepped = service_->archiver().step();
    if (!has_crashed())
      note(stepped ? "archived all the same" : "not archived: " + stepped.error().message());
  }
  mend_backends();
}

void VolumeSim::roll_back_meta() {
  if (meta_budget() == 0) return;
  const std::size_t chosen = meta_configured_[dice(meta_configured_.size())];
  const auto snapshot = meta_snapshots_.find(chosen);
  if (snapshot == meta_snapshots_.end()) {
    meta_snapshots_[chosen] = meta_[chosen]->take_snapshot();
    return;
  }
  meta_[chosen]->roll_back(*snapshot->second);
  meta_was_behind_ = true;
  note(meta_[chosen]->address() + " is rolled back");
}

void VolumeSim::roll_back_all_meta() {
  if (meta_was_behind_ || may_be_degraded_ || !wiped_.empty() || !is_on_backends_) return;
  if (all_meta_before_.size() != meta_configured_.size()) {
    all_meta_before_.clear();
    for (const std::size_t i : meta_configured_)
      all_meta_before_.emplace_back(i, meta_[i]->take_snapshot());
    note("the meta backends are remembered");
    return;
  }
  for (const auto& [i, snapshot] : all_meta_before_) meta_[i]->roll_back(*snapshot);
  all_meta_before_.clear();
  meta_was_behind_ = true;
  is_disk_needed_ = true;
  note("all meta backends are rolled back");
  // Who looks while that happens stops writing: it is found by the next start.
  end_life(End::kKill);
  restore_head();
  // The head may name a checkpoint that is gone, until the next one; that comes with a change.
  for (int i = 0; i < 4 && !has_crashed(); ++i) {
    change();
    if (!has_crashed()) sync_remote();
  }
  if (!has_crashed()) heal_until_whole();
}

void VolumeSim::power_cut_all() {
  // Where the cache has a limit, what was archived a moment ago may be nowhere else.
  const bool evicts = config_->cache.limit_bytes != 0;
  if (evicts || meta_was_behind_ || may_be_degraded_ || !wiped_.empty()) return;
  // What was stored until here has reached the disks of the backends; the rest is here as well.
  clock_.advance(std::chrono::minutes(1));
  const std::uint64_t rounds = 1 + dice(4);
  for (std::uint64_t i = 0; i < rounds; ++i) {
    change();
    if (has_crashed()) return;
    if (dice(2) == 0) sync_remote();
    if (has_crashed()) return;
  }
  note_loss();
  is_disk_needed_ = true;
  for (const auto& server : data_) server->power_cut();
  const bool is_meta_cut = dice(2) == 0;
  if (is_meta_cut) {
    meta_was_behind_ = true;
    for (const auto& server : meta_) server->power_cut();
  }
  note(std::string("all data backends") + (is_meta_cut ? ", and those of metadata," : "") +
       " have a power cut");
  if (is_meta_cut) {
    end_life(End::kKill);
    restore_head();
  }
  if (!has_crashed()) heal_until_whole();
}

void VolumeSim::restore_head() {
  const auto stepped = service_->archiver().step();
  if (has_crashed() || stepped) return;
  if (stepped.error().code != Errc::kReadOnly) broken("archive: " + stepped.error().message());
  // Rolled back behind the claim of this machine: told, and what an operator does then (qsfs check
  // --rebuild-manifests, and another mount).
  note("fenced: " + stepped.error().message());
  const auto restored = service_->archiver().restore_head();
  if (!has_crashed() && !restored) broken("restore the head: " + restored.error().message());
  end_life(End::kKill);
  // The manifests are published again by whoever looks at them all.
  wants_scrub_ = true;
}

void VolumeSim::change_meta_backends() {
  if (meta_was_behind_ || may_be_degraded_ || !wiped_.empty()) return;
  const std::size_t before = meta_configured_.size();
  const std::uint64_t kind = dice(3);
  if (kind == 0 && before >= kMetaBackendsMax) return;
  if (kind == 1 && before == 1) return;
  const std::size_t at = dice(before);
  if (kind != 0) {
    note(meta_[meta_configured_[at]]->address() + " is removed from " + std::to_string(before));
    meta_configured_.erase(meta_configured_.begin() + static_cast<std::ptrdiff_t>(at));
    // The only one: until its values are copied, they are here alone.
    is_disk_needed_ = before == 1;
  }
  if (kind != 1) {
    add_meta_backend();
    note(meta_.back()->address() + " is added");
  }
  meta_was_behind_ = true;
  if (!reload_configuration()) return;
  is_disk_needed_ = false;
  if (dice(2) == 0) heal_until_whole();
}

void VolumeSim::heal_under_faults() {
  if (loss_budget() == 0) return;
  const std::uint64_t rounds = 1 + dice(3);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    // Something to do, and something in the way of it.
    if (dice(2) == 0) lose_shards();
    break_backends();
    const std::uint64_t steps = 1 + dice(12);
    for (std::uint64_t i = 0; i < steps; ++i) {
      clock_.advance(std::chrono::seconds(5 + dice(20)));
      store_->probe();
      const auto stepped = service_->healer().step();
      if (has_crashed()) return;
      if (!stepped) note("not healed: " + stepped.error().message());
    }
    mend_backends();
    if (has_crashed()) return;
  }
  heal_until_whole();
}

void VolumeSim::check_meta_whole() {
  if (!meta_was_behind_) return;
  std::vector<const SimZdb*> metas;
  for (const std::size_t i : meta_configured_) metas.push_back(meta_[i].get());
  const zstor::Uuid& volume = config_->volume.uuid;
  const auto find_fault = [&] {
    std::string fault = oracle_->copies_behind(zstor::head_name(volume), metas);
    const auto [first, last] = fs::tag_range('m');
    for (const auto it = service_->meta().iterate(first, last); it->valid() && fault.empty();
         it->next()) {
      const std::uint32_t id = load_be<std::uint32_t>(it->key().data() + 1);
      fault = oracle_->copies_behind(zstor::segment_name(volume, id), metas);
    }
    return fault;
  };
  if (find_fault().empty() || has_crashed()) return;
  clock_.advance(kCheckAgain);
  let_heal();
  if (has_crashed()) return;
  const std::string fault = find_fault();
  if (!has_crashed() && !fault.empty()) broken("the meta backends are not whole: " + fault);
}

}  // namespace qsfs::sim
