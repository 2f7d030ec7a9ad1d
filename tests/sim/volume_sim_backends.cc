// What happens to the backends of a simulated volume, and what must hold then.
#include <algorithm>

#include "tests/sim/volume_sim.h"

namespace qsfs::sim {

std::size_t VolumeSim::loss_budget() const {
  const std::size_t parity = parity_;
  const std::size_t base = may_be_degraded_ ? std::max<std::size_t>(1, parity / 2) : parity;
  return base - std::min(base, wiped_.size());
}

void VolumeSim::note_loss() { good_before_.clear(); }

void VolumeSim::lose_shards() {
  if (!loses_shards_ || loss_budget() == 0) return;
  const std::size_t victim = configured_[dice(configured_.size())];
  wiped_.insert(victim);
  note_loss();
  const auto snapshot = snapshots_.find(victim);
  switch (dice(3)) {
    case 0:
      data_[victim]->wipe();
      note(data_[victim]->address() + " is wiped");
      break;
    case 1:
      if (snapshot != snapshots_.end()) {
        data_[victim]->roll_back(*snapshot->second);
        note(data_[victim]->address() + " is rolled back");
        break;
      }
      [[fallthrough]];
    default:
      data_[victim]->power_cut();
      note(data_[victim]->address() + " has a power cut");
      break;
  }
}

void VolumeSim::let_heal() {
  constexpr int kRounds = 200;
  for (int round = 0; round < kRounds; ++round) {
    clock_.advance(std::chrono::seconds(20));
    store_->probe();
    while (true) {
      const auto stepped = service_->healer().step();
      if (has_crashed()) return;
      if (!stepped) {
        note("not healed: " + stepped.error().message());
        break;
      }
      if (!*stepped) break;
    }
    const fs::HealStatus status = service_->healer().status();
    if (round > 3 && service_->healer().has_looked() && status.repairs_queued == 0 &&
        status.backends_checking == 0 && !status.scrub.is_asked) {
      return;
    }
  }
  note("the healer does not come to its end");
}

void VolumeSim::check_whole(const std::string& when) {
  const auto look = [&](const zstor::Manifest& object) {
    if (object.stripes.empty()) return;
    const auto report = store_->verify(object, zstor::VerifyMode::kReadBack);
    if (has_crashed()) return;
    if (!report) broken("verify: " + report.error().message());
    if (report->faults.empty()) return;
    const zstor::ShardFault& fault = report->faults.front();
    const zstor::ShardLocation& at = object.shard(fault.stripe, fault.index);
    broken(when + ": " + object.label + ": " + std::to_string(report->faults.size()) +
           " shards are not whole, the first: stripe " + std::to_string(fault.stripe) + " index " +
           std::to_string(fault.index) + " at " +
           (at.backend == zstor::ShardLocation::kAbsent ? "no backend"
                                                        : object.backends[at.backend].address) +
           ": " + std::string(to_string(fault.reason)));
  };
  const auto [first, last] = fs::tag_range('m');
  for (const auto it = service_->meta().iterate(first, last); it->valid(); it->next()) {
    const std::uint32_t id = load_be<std::uint32_t>(it->key().data() + 1);
    // What a recovery would find.
    const auto value = store_->meta().get(zstor::segment_name(config_->volume.uuid, id));
    if (has_crashed()) return;
    if (!value || !*value) broken("segment " + std::to_string(id) + " has no manifest");
    const auto manifest = zstor::SegmentManifest::parse((*value)->bytes);
    if (!manifest) broken("segment " + std::to_string(id) + ": " + manifest.error().message());
    if (id >= first_journal_) look(manifest->journal);
    if (manifest->data) look(*manifest->data);
  }
  const auto checkpoint = service_->archiver().checkpoint_manifest();
  if (has_crashed()) return;
  if (!checkpoint) broken("checkpoint: " + checkpoint.error().message());
  if (*checkpoint) look((*checkpoint)->object);
}

void VolumeSim::heal_until_whole() {
  mend_backends();
  if (wants_scrub_) service_->healer().start_scrub(/*read_data=*/true);
  let_heal();
  if (has_crashed()) return;
  if (is_disk_needed_) {
    // What the healer asked for: a checkpoint in the place of journals, or of one, that are lost.
    sync_remote();
    if (has_crashed()) return;
    let_heal();
    if (has_crashed()) return;
    first_journal_ = service_->archiver().status().checkpoint_segment + 1;
  }
  check_whole("healed");
  if (has_crashed()) return;
  check_meta_whole();
  if (has_crashed()) return;
  wiped_.clear();
  wants_scrub_ = false;
  may_be_degraded_ = false;
  meta_was_behind_ = false;
  is_disk_needed_ = false;
  note("all is whole");
}

void VolumeSim::outlive_backend() {
  if (configured_.size() <= n_max_ || loss_budget() == 0) return;
  SimZdb& victim = any_data();
  note(victim.address() + " is gone");
  victim.faults().down = true;
  if (wants_scrub_) service_->healer().start_scrub(/*read_data=*/true);
  let_heal();
  if (!has_crashed()) check_whole("without " + victim.address());
  if (has_crashed()) return;
  note("all is whole without it");
  heal_until_whole();
}

void VolumeSim::flap() {
  if (loss_budget() == 0 || !wiped_.empty() || may_be_degraded_) return;
  let_heal();
  if (has_crashed()) return;
  const std::uint64_t moved = service_->healer().status().shards_moved;
  SimZdb& victim = any_data();
  for (int i = 0; i < 30 && !has_crashed(); ++i) {
    victim.faults().down = i % 2 == 0;
    clock_.advance(std::chrono::seconds(1 + dice(5)));
    store_->probe();
    const auto stepped = service_->healer().step();
    if (!stepped && !has_crashed()) note("not healed: " + stepped.error().message());
  }
  if (has_crashed()) return;
  mend_backends();
  if (service_->healer().status().shards_moved != moved)
    broken("a backend that flaps cost repairs");
  note(victim.address() + " flapped");
}

void VolumeSim::archive_under_faults() {
  if (!archives_under_faults_) return;
  may_be_degraded_ = true;
  if (dice(3) == 0) {
    // As many as may be lost say that they have what they have not.
    for (std::size_t i = loss_budget(); i > 0; --i) any_data().faults().lie_probability = 1;
  } else {
    break_backends();
  }
  const auto stepped = service_->archiver().step();
  if (!has_crashed())
    note(stepped ? "archived all the same" : "not archived: " + stepped.error().message());
  mend_backends();
}

void VolumeSim::break_one(SimZdb& server) {
  SimFaults& faults = server.faults();
  switch (dice(11)) {
    case 0:
      faults.down = true;
      break;
    case 1:
      faults.full = true;
      break;
    case 2:
      faults.corrupt_read_probability = dice(2) == 0 ? 1 : 0.3;
      faults.corruption = static_cast<Corruption>(dice(5));
      break;
    case 3:
      faults.frozen = true;
      break;
    case 4:
      faults.lie_probability = dice(2) == 0 ? 1 : 0.2;
      break;
    case 5:
      faults.drop_ack_probability = 0.5;
      break;
    case 6:
      faults.locked = true;
      break;
    case 7:
      faults.disk_error = true;
      break;
    case 8:
      faults.namespace_gone = true;
      break;
    case 9:
      faults.fail_probability = 0.5;
      faults.error = dice(2) == 0 ? Errc::kUnavailable : Errc::kTimeout;
      break;
    default:
      faults.wrong_password = true;
      break;
  }
  note(server.address() + " is broken");
}

void VolumeSim::break_backends() {
  const std::size_t budget = loss_budget();
  for (std::size_t i = 0; i < budget; ++i) break_one(any_data());
  if (meta_budget() > 0 && dice(2) == 0) {
    meta_[meta_configured_[dice(meta_configured_.size())]]->faults().down = true;
    meta_was_behind_ = true;
    note("a meta backend is down");
  }
}

void VolumeSim::mend_backends() {
  for (const auto& server : data_) server->clear_faults();
  for (const auto& server : meta_) server->clear_faults();
  // Back-off and cool-down pass.
  clock_.advance(std::chrono::minutes(5));
  if (store_ != nullptr && !has_crashed()) store_->probe();
}

void VolumeSim::scrub_days() {
  if (loss_budget() == 0 || !wiped_.empty() || may_be_degraded_) return;
  const std::uint64_t days = 1 + dice(4);
  for (std::uint64_t day = 0; day < days; ++day) {
    const std::size_t victim = configured_[dice(configured_.size())];
    note_loss();
    // What vanishes shows in the number of entries; what rots, only to whoever looks at it; and
    // what is another's, only to whoever reads it.
    const bool rots = dice(2) == 0;
    const auto kind = static_cast<Corruption>(dice(5));
    const std::uint64_t lost =
        rots ? data_[victim]->rot_randomly(0.2, kind) : data_[victim]->lose_randomly(0.2);
    wiped_.insert(victim);
    note(data_[victim]->address() + " loses " + std::to_string(lost) + " shards in a day" +
         (rots ? ", by rot" : ""));
    for (int i = 0; i < 4; ++i) {
      clock_.advance(std::chrono::hours(6));
      store_->probe();
    }
    service_->healer().start_scrub(/*read_data=*/rots || dice(2) == 0);
    let_heal();
    if (has_crashed()) return;
    check_whole("after a scrub");
    if (has_crashed()) return;
    wiped_.erase(victim);
  }
}

void VolumeSim::outage() {
  note("all backends are away");
  for (const auto& server : data_) server->faults().down = true;
  for (const auto& server : meta_) server->faults().down = true;
  for (int i = 0; i < 6 && !has_crashed(); ++i) {
    clock_.advance(std::chrono::minutes(10));
    store_->probe();
    change();
    if (has_crashed()) break;
    sync_local();
    if (has_crashed()) break;
    const auto archived = service_->archiver().step();
    const auto healed = service_->healer().step();
    if (has_crashed()) break;
    if (!archived) note("not archived: " + archived.error().message());
    if (!healed) note("not healed: " + healed.error().message());
  }
  mend_backends();
  if (has_crashed()) return;
  note("all backends are back");
  sync_remote();
}

void VolumeSim::change_configuration() {
  if (may_be_degraded_ || !wiped_.empty()) return;
  const std::uint64_t kind = dice(4);
  if (kind == 0) {
    k_ = static_cast<unsigned>(1 + dice(4));
    n_ = k_ + static_cast<unsigned>(1 + dice(3));
    while (configured_.size() < n_) add_data_backend();
    note("k " + std::to_string(k_) + " n " + std::to_string(n_));
  } else if (kind == 1) {
    add_data_backend();
    note(data_.back()->address() + " is added");
  } else {
    // Removed, or replaced.
    if (kind == 3 || configured_.size() <= n_max_) add_data_backend();
    const std::size_t at = dice(configured_.size() - 1);
    const std::size_t gone = configured_[at];
    configured_.erase(configured_.begin() + static_cast<std::ptrdiff_t>(at));
    wiped_.insert(gone);
    note_loss();
    note(data_[gone]->address() + " is removed from " + std::to_string(configured_.size() + 1));
  }
  parity_ = std::min(parity_, n_ - k_);
  n_max_ = std::max(n_max_, n_);
  if (reload_configuration() && dice(2) == 0) heal_until_whole();
}

bool VolumeSim::reload_configuration() {
  auto config = make_config();
  if (!config) broken("configuration: " + config.error().message());
  // The file is there before it is told of: whoever starts after a crash reads it.
  config_ = *config;
  const Status reloaded = store_->reload(std::move(*config));
  if (has_crashed()) return false;
  if (!reloaded) broken("reload: " + reloaded.error().message());
  store_->probe();
  service_->healer().request_repair();
  service_->archiver().wake();
  return true;
}

std::string VolumeSim::judge_object(const zstor::Manifest& object) {
  for (std::uint32_t stripe = 0; stripe < object.stripes.size(); ++stripe) {
    const unsigned good = oracle_->good_shards(object, stripe);
    const auto what = [&] {
      return object.label + " has " + std::to_string(good) + " intact shards of stripe " +
             std::to_string(stripe) + ", and needs " + std::to_string(object.data_shards) + "; " +
             oracle_->describe(object, stripe);
    };
    // P6: whatever was allowed to happen to the backends.
    if (good < object.data_shards) return "P6: " + what();
    const auto [before, is_new] =
        good_before_.try_emplace({object.id, object.generation, stripe}, good);
    // P5: when it is called archived, more than it takes were verified; where backends have lost
    // what they held since, less may be left.
    if (is_new && wiped_.empty() && good == object.data_shards) return "P5: " + what();
    // P14: only a loss costs redundancy; nothing that we do does.
    if (good < before->second) {
      return "P14: " + what() + " and had " + std::to_string(before->second);
    }
    before->second = good;
  }
  return "";
}

std::string VolumeSim::judge_archived() {
  std::vector<const SimZdb*> metas;
  for (const std::size_t i : meta_configured_) metas.push_back(meta_[i].get());
  const auto [first, last] = fs::tag_range('m');
  for (const auto it = service_->meta().iterate(first, last); it->valid(); it->next()) {
    const std::uint32_t segment = load_be<std::uint32_t>(it->key().data() + 1);
    // Ours may be older, after a recovery; whoever misses a shard reads this one.
    const auto published = oracle_->published(segment, metas);
    if (published == nullptr)
      return "P5: segment " + std::to_string(segment) + " is published nowhere";
    for (const zstor::Manifest* object : {segment < first_journal_ ? nullptr : &published->journal,
                                          published->data ? &*published->data : nullptr}) {
      if (object == nullptr) continue;
      if (std::string wrong = judge_object(*object); !wrong.empty()) return wrong;
    }
  }
  return "";
}

void VolumeSim::check_redundancy() {
  if (is_checking_ || service_ == nullptr || has_crashed() || !redundancy_broken_.empty()) return;
  // For a while, this disk makes up for what the backends lack.
  if (is_disk_needed_) return;
  // Nothing archived and nothing stored or deleted: nothing can be different.
  std::uint64_t changes = service_->archiver().status().segments_archived;
  for (const auto& server : data_) changes += server->changes();
  for (const auto& server : meta_) changes += server->changes();
  if (changes == looked_at_changes_) return;
  looked_at_changes_ = changes;
  // It may read the simulated disk, and crash there.
  is_checking_ = true;
  std::string wrong = judge_archived();
  is_checking_ = false;
  if (!has_crashed()) redundancy_broken_ = std::move(wrong);
}

}  // namespace qsfs::sim
