// Random work on an engine beside a model, and what a crash may leave of it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/zdb/engine_fixture.h"

namespace qsfs::zdb {

using Content = std::map<std::string, std::string>;

// Everything that scan() lists, with what get() returns for it.
inline Content read_content(EngineLife& life) {
  Content content;
  for (const std::string& key : life.scan_all(7)) {
    const auto value = life.must_get(key);
    EXPECT_TRUE(value) << "listed but not there: " << to_hex(as_bytes(key));
    content[key] = value.value_or("");
  }
  EXPECT_EQ(life.ns().counters().entries, content.size());
  return content;
}

// What the content was after each acknowledged operation, and which of these states a crash may
// leave. An operation that failed, or was under way when the disk died, may or may not have
// happened.
class EngineHistory {
 public:
  explicit EngineHistory(EngineLife& life, std::uint64_t seed) : life_(life), random_(seed) {}

  // One random operation. False: it failed.
  bool step() {
    if (random_.below(6) == 0) return set_many();
    const std::uint64_t dice = random_.below(10);
    const auto sequential = life_.ns().settings().mode == NamespaceMode::kSequential;
    if (dice < 6) return sequential ? allocate() : set(random_key());
    if (dice < 8) return remove(random_key());
    if (dice < 9 || sequential) return update();
    return set(random_key());
  }

  bool sync() {
    if (!life_.engine().sync()) return false;
    states_.erase(states_.begin(), states_.end() - 1);
    return true;
  }

  [[nodiscard]] const Content& now() const { return states_.back(); }
  [[nodiscard]] std::uint64_t next_id() const { return next_id_; }

  // After a crash: checks what is there against what may be, and goes on from it.
  void check_survivors(bool may_lose_unsynced) {
    const Content found = read_content(life_);
    std::vector<Content> allowed;
    if (may_lose_unsynced) allowed = states_;
    if (!may_lose_unsynced) allowed.push_back(states_.back());
    allowed.insert(allowed.end(), in_doubt_.begin(), in_doubt_.end());
    EXPECT_TRUE(std::ranges::find(allowed, found) != allowed.end())
        << "found " << found.size() << " entries, expected " << now().size();
    states_ = {found};
    in_doubt_.clear();
    next_id_ = life_.ns().counters().next_id;
  }

  // In a running engine only what was acknowledged is visible.
  void check_running() { EXPECT_EQ(read_content(life_), now()); }

 private:
  std::string random_key() {
    if (life_.ns().settings().mode == NamespaceMode::kSequential) {
      const auto id = encode_id(random_.below(next_id_ + 1));
      return std::string(as_text(id));
    }
    // Of lengths that leave every kind of padding.
    const auto number = random_.below(12);
    return "key" + std::string(static_cast<std::size_t>(number), 'k');
  }
  std::string random_value() {
    const std::uint64_t size = random_.below(4) == 0 ? random_.below(20000) : random_.below(900);
    std::string value(static_cast<std::size_t>(size), '\0');
    random_.fill(std::as_writable_bytes(std::span(value)));
    return value;
  }

  void acknowledged(const std::string& key, std::optional<std::string> value) {
    Content next = after(key, std::move(value));
    states_.push_back(std::move(next));
    in_doubt_.clear();
  }
  Content after(const std::string& key, std::optional<std::string> value) const {
    Content next = now();
    if (value) next[key] = std::move(*value);
    if (!value) next.erase(key);
    return next;
  }

  bool set(const std::string& key) {
    const std::string value = random_value();
    const auto stored = life_.ns().set(as_bytes(key), as_bytes(value), 1);
    if (!stored) {
      in_doubt_ = {after(key, value)};
      return false;
    }
    acknowledged(key, value);
    return true;
  }
  bool allocate() {
    const std::string value = random_value();
    const auto next = encode_id(life_.ns().counters().next_id);
    const auto stored = life_.ns().set({}, as_bytes(value), 1);
    if (!stored) {
      in_doubt_ = {after(std::string(as_text(next)), value)};
      return false;
    }
    const auto id = load_le<std::uint64_t>(stored->key.data());
    EXPECT_GE(id, next_id_) << "an id was given out twice";
    next_id_ = id + 1;
    acknowledged(std::string(as_text(stored->key)), value);
    return true;
  }
  // A few sets at once, of which the same key may be more than one.
  bool set_many() {
    const bool sequential = life_.ns().settings().mode == NamespaceMode::kSequential;
    std::vector<std::string> keys;
    std::vector<std::string> values;
    std::vector<EngineNamespace::SetRequest> requests;
    const std::uint64_t count = 2 + random_.below(4);
    for (std::uint64_t i = 0; i < count; ++i) {
      keys.push_back(sequential ? std::string() : random_key());
      values.push_back(random_value());
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
      requests.push_back(
          {.key = as_bytes(keys[i]), .value = as_bytes(values[i]), .unix_time_s = 1});
    }
    std::uint64_t next = life_.ns().counters().next_id;
    const auto stored = life_.ns().set_many(requests);
    EXPECT_EQ(stored.size(), requests.size());
    std::vector<std::size_t> failed;
    for (std::size_t i = 0; i < stored.size(); ++i) {
      if (!stored[i]) {
        failed.push_back(i);
        continue;
      }
      if (sequential) {
        const auto id = load_le<std::uint64_t>(stored[i]->key.data());
        EXPECT_GE(id, next_id_) << "an id was given out twice";
        next_id_ = id + 1;
        next = std::max(next, id + 1);
      }
      acknowledged(std::string(as_text(stored[i]->key)), values[i]);
    }
    if (failed.empty()) return true;
    if (sequential) {
      for (const std::size_t i : failed) keys[i] = as_text(encode_id(next++));
    }
    // Of those that failed, any may be there; without a sync before the reply, only a beginning.
    const bool any = life_.options.sync == SyncPolicy::kAlways;
    for (std::size_t subset = 1; subset < std::size_t{1} << failed.size(); ++subset) {
      if (!any && (subset & (subset + 1)) != 0) continue;
      Content content = now();
      for (std::size_t i = 0; i < failed.size(); ++i) {
        if ((subset >> i & 1) != 0) content[keys[failed[i]]] = values[failed[i]];
      }
      in_doubt_.push_back(std::move(content));
    }
    return false;
  }
  bool update() {
    if (now().empty()) return true;
    auto picked = now().begin();
    std::advance(picked, static_cast<std::ptrdiff_t>(random_.below(now().size())));
    return set(std::string(picked->first));
  }
  bool remove(const std::string& key) {
    const auto removed = life_.ns().remove(as_bytes(key));
    if (!removed) {
      in_doubt_ = {after(key, std::nullopt)};
      return false;
    }
    EXPECT_EQ(*removed, now().contains(key));
    if (*removed) acknowledged(key, std::nullopt);
    return true;
  }

  EngineLife& life_;
  SeededRandom random_;
  std::vector<Content> states_{{}};
  std::vector<Content> in_doubt_;
  std::uint64_t next_id_ = 0;
};

}  // namespace qsfs::zdb
