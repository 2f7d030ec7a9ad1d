// What every zdb::Backend must do, as one suite: include it in one source file, instantiate
// UserModeContract and SequentialModeContract with the implementations.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "base/thread.h"
#include "zdb/backend.h"

namespace qsfs::zdb {

// Owns an implementation, what it needs (server, directory), and an empty namespace.
class ContractSubject {
 public:
  virtual ~ContractSubject() = default;
  virtual Backend& backend() = 0;
};

struct ContractParam {
  std::string name;
  std::function<std::unique_ptr<ContractSubject>(NamespaceMode)> make;

  friend void PrintTo(const ContractParam& param, std::ostream* out) { *out << param.name; }
};

inline std::string contract_param_name(const testing::TestParamInfo<ContractParam>& info) {
  return info.param.name;
}

class BackendContract : public testing::TestWithParam<ContractParam> {
 protected:
  static constexpr Duration kTimeout = std::chrono::seconds(30);

  explicit BackendContract(NamespaceMode mode) : subject_(GetParam().make(mode)) {}

  Backend& backend() { return subject_->backend(); }

  Buffer Set(std::string_view key, Bytes value) {
    const auto stored = backend().set(as_bytes(key), value, kTimeout);
    EXPECT_TRUE(stored) << stored.error().message();
    return stored.value_or(Buffer());
  }
  Buffer Set(std::string_view key, std::string_view value) { return Set(key, as_bytes(value)); }
  Errc SetError(Bytes key, Bytes value) {
    const auto stored = backend().set(key, value, kTimeout);
    EXPECT_FALSE(stored);
    return stored ? Errc::kInternal : stored.error().code;
  }
  std::optional<Buffer> Get(Bytes key) {
    const auto value = backend().get(key, kTimeout);
    EXPECT_TRUE(value) << value.error().message();
    return value.value_or(std::nullopt);
  }
  std::optional<std::string> GetText(std::string_view key) {
    const auto value = Get(as_bytes(key));
    if (!value) return std::nullopt;
    return std::string(as_text(*value));
  }
  bool Remove(Bytes key) {
    const auto removed = backend().remove(key, kTimeout);
    EXPECT_TRUE(removed) << removed.error().message();
    return removed.value_or(false);
  }
  bool Exists(Bytes key) {
    const auto exists = backend().exists(key, kTimeout);
    EXPECT_TRUE(exists) << exists.error().message();
    return exists.value_or(false);
  }
  std::optional<std::uint64_t> Length(Bytes key) {
    const auto len = backend().length(key, kTimeout);
    EXPECT_TRUE(len) << len.error().message();
    return len.value_or(std::nullopt);
  }
  CheckVerdict Check(Bytes key) {
    const auto verdict = backend().check(key, kTimeout);
    EXPECT_TRUE(verdict) << verdict.error().message();
    return verdict.value_or(CheckVerdict::kUnreadable);
  }
  NamespaceInfo Info() {
    const auto info = backend().info(kTimeout);
    EXPECT_TRUE(info) << info.error().message();
    return info.value_or(NamespaceInfo());
  }
  ScanPage Scan(Bytes cursor) {
    auto page = backend().scan(cursor, kTimeout);
    EXPECT_TRUE(page) << page.error().message();
    return page ? std::move(*page) : ScanPage();
  }
  std::vector<ScanEntry> ScanAll() {
    std::vector<ScanEntry> all;
    Buffer cursor;
    do {
      ScanPage page = Scan(cursor);
      std::ranges::move(page.entries, std::back_inserter(all));
      cursor = std::move(page.cursor);
    } while (!cursor.empty());
    return all;
  }
  std::vector<std::string> ScanKeys() {
    std::vector<std::string> keys;
    for (const ScanEntry& entry : ScanAll()) keys.emplace_back(as_text(entry.key));
    return keys;
  }

  static Buffer RandomValue(std::size_t len, std::uint64_t seed) {
    Buffer value(len);
    SeededRandom(seed).fill(value);
    return value;
  }

 private:
  std::unique_ptr<ContractSubject> subject_;
};

class UserModeContract : public BackendContract {
 protected:
  UserModeContract() : BackendContract(NamespaceMode::kUser) {}
};

class SequentialModeContract : public BackendContract {
 protected:
  SequentialModeContract() : BackendContract(NamespaceMode::kSequential) {}

  Buffer Allocate(std::string_view value) { return Set("", value); }
};

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(UserModeContract);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SequentialModeContract);

// User mode.

TEST_P(UserModeContract, GivesBackWhatWasStored) {
  const Buffer key = Set("name", "value");
  EXPECT_EQ(as_text(key), "name");
  EXPECT_EQ(GetText("name"), "value");
}

TEST_P(UserModeContract, HasNothingUnderAnUnknownKey) {
  EXPECT_EQ(GetText("nothing"), std::nullopt);
  EXPECT_FALSE(Exists(as_bytes("nothing")));
  EXPECT_EQ(Length(as_bytes("nothing")), std::nullopt);
  EXPECT_EQ(Check(as_bytes("nothing")), CheckVerdict::kMissing);
  EXPECT_FALSE(Remove(as_bytes("nothing")));
}

TEST_P(UserModeContract, ReplacesAValue) {
  Set("name", "first");
  Set("name", "second, and longer");
  EXPECT_EQ(GetText("name"), "second, and longer");
  EXPECT_EQ(Info().entries, 1U);
}

TEST_P(UserModeContract, TakesIdenticalDataForSuccess) {
  Set("name", "value");
  EXPECT_EQ(as_text(Set("name", "value")), "name");
  EXPECT_EQ(GetText("name"), "value");
}

TEST_P(UserModeContract, KeepsAnEmptyValue) {
  Set("empty", "");
  EXPECT_EQ(GetText("empty"), "");
  EXPECT_EQ(Length(as_bytes("empty")), 0U);
  EXPECT_TRUE(Exists(as_bytes("empty")));
}

TEST_P(UserModeContract, KeepsValuesOfAllSizes) {
  const std::vector<std::size_t> sizes = {1,    2,    511,   512,   1023,   1024,       1025,
                                          4000, 4088, 4089,  4090,  4091,   4092,       4096,
                                          8191, 8192, 16384, 65537, 262144, 1024 * 1024};
  for (const std::size_t size : sizes) {
    const std::string key = "size-" + std::to_string(size);
    const Buffer value = RandomValue(size, size);
    Set(key, value);
    EXPECT_TRUE(Get(as_bytes(key)) == value) << size;
    EXPECT_EQ(Length(as_bytes(key)), size);
    EXPECT_EQ(Check(as_bytes(key)), CheckVerdict::kGood) << size;
  }
}

TEST_P(UserModeContract, KeepsTheLongestValueAndRefusesALongerOne) {
  const Buffer longest = RandomValue(kValueLenMax, 1);
  Set("long", longest);
  EXPECT_TRUE(Get(as_bytes("long")) == longest);
  EXPECT_EQ(SetError(as_bytes("longer"), Buffer(kValueLenMax + 1)), Errc::kTooBig);
  EXPECT_FALSE(Exists(as_bytes("longer")));
}

TEST_P(UserModeContract, TakesAnyBytesForAKey) {
  using std::string_view_literals::operator""sv;
  const std::string_view odd = "\0\r\n$-1\r\n\xff*3\r\n"sv;
  Set(odd, "value");
  EXPECT_EQ(GetText(odd), "value");
  EXPECT_EQ(ScanKeys(), std::vector<std::string>{std::string(odd)});
}

TEST_P(UserModeContract, TakesAnyBytesForAValue) {
  using std::string_view_literals::operator""sv;
  const std::string_view odd = "\r\n$-1\r\n:1\r\n-No space left on this namespace\r\n\0"sv;
  Set("odd", odd);
  EXPECT_EQ(GetText("odd"), odd);
}

TEST_P(UserModeContract, TakesTheLongestKeyAndRefusesALongerOne) {
  const std::string longest(kKeyLenMax, 'k');
  Set(longest, "value");
  EXPECT_EQ(GetText(longest), "value");
  const std::string longer = longest + "k";
  EXPECT_EQ(SetError(as_bytes(longer), as_bytes("value")), Errc::kTooBig);
  EXPECT_EQ(Info().entries, 1U);
}

TEST_P(UserModeContract, RefusesAnEmptyKey) {
  EXPECT_EQ(SetError({}, as_bytes("value")), Errc::kInvalidArgument);
  EXPECT_EQ(Info().entries, 0U);
}

TEST_P(UserModeContract, RemovesAKeyOnce) {
  Set("name", "value");
  EXPECT_TRUE(Remove(as_bytes("name")));
  EXPECT_EQ(GetText("name"), std::nullopt);
  EXPECT_FALSE(Exists(as_bytes("name")));
  EXPECT_EQ(Check(as_bytes("name")), CheckVerdict::kMissing);
  EXPECT_FALSE(Remove(as_bytes("name")));
}

TEST_P(UserModeContract, StoresAgainAfterRemoval) {
  Set("name", "value");
  Remove(as_bytes("name"));
  Set("name", "value");
  EXPECT_EQ(GetText("name"), "value");
}

TEST_P(UserModeContract, CountsWhatLives) {
  Set("a", "12345");
  Set("b", "123");
  Set("a", "1234567");
  Set("c", "1");
  Remove(as_bytes("c"));
  const NamespaceInfo info = Info();
  EXPECT_EQ(info.mode, NamespaceMode::kUser);
  EXPECT_EQ(info.entries, 2U);
  EXPECT_EQ(info.data_bytes, 10U);
  EXPECT_FALSE(info.locked);
  EXPECT_FALSE(info.worm);
  EXPECT_GT(info.free_bytes, 0U);
}

TEST_P(UserModeContract, ScansEveryLiveKeyOnce) {
  std::map<std::string, std::uint64_t> expected;
  for (int i = 0; i < 500; ++i) {
    const std::string key = "key-" + std::to_string(i);
    Set(key, std::string(static_cast<std::size_t>(i % 40), 'v'));
    expected[key] = static_cast<std::uint64_t>(i % 40);
  }
  for (int i = 0; i < 500; i += 5) {
    const std::string key = "key-" + std::to_string(i);
    Remove(as_bytes(key));
    expected.erase(key);
  }
  for (int i = 1; i < 500; i += 5) {
    const std::string key = "key-" + std::to_string(i);
    Set(key, "replaced");
    expected[key] = 8;
  }
  const std::vector<ScanEntry> all = ScanAll();
  EXPECT_EQ(all.size(), expected.size());
  std::map<std::string, std::uint64_t> seen;
  for (const ScanEntry& entry : all) seen[std::string(as_text(entry.key))] = entry.payload_bytes;
  EXPECT_EQ(seen, expected);
}

TEST_P(UserModeContract, ScansNothingInAnEmptyNamespace) { EXPECT_TRUE(ScanAll().empty()); }

TEST_P(UserModeContract, ScansInTheOrderOfWriting) {
  for (const char* key : {"d", "b", "a", "c"}) Set(key, "value");
  Set("b", "again");
  EXPECT_EQ(ScanKeys(), (std::vector<std::string>{"d", "a", "c", "b"}));
}

TEST_P(UserModeContract, ScanGoesOnBehindARemovedKey) {
  std::set<std::string> missing;
  for (int i = 0; i < 400; ++i) {
    Set("key-" + std::to_string(i), "value");
    missing.insert("key-" + std::to_string(i));
  }
  Buffer cursor;
  do {
    const ScanPage page = Scan(cursor);
    for (const ScanEntry& entry : page.entries) {
      EXPECT_EQ(missing.erase(std::string(as_text(entry.key))), 1U);
      Remove(entry.key);
    }
    cursor = page.cursor;
  } while (!cursor.empty());
  EXPECT_TRUE(missing.empty());
  EXPECT_EQ(Info().entries, 0U);
}

TEST_P(UserModeContract, RefusesACursorThatItNeverGave) {
  Set("name", "value");
  const auto page = backend().scan(as_bytes("bad"), kTimeout);
  ASSERT_FALSE(page);
  EXPECT_EQ(page.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(ScanKeys().size(), 1U);
}

TEST_P(UserModeContract, TellsTheSameInstanceWhileItRuns) {
  const auto first = backend().server_info(kTimeout);
  const auto second = backend().server_info(kTimeout);
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(first->instance_id.empty());
  EXPECT_EQ(first->instance_id, second->instance_id);
}

TEST_P(UserModeContract, CountsRequestsAndErrors) {
  const BackendStats before = backend().stats();
  Set("name", "value");
  GetText("name");
  SetError({}, as_bytes("value"));
  const BackendStats after = backend().stats();
  EXPECT_EQ(after.requests - before.requests, 3U);
  EXPECT_EQ(after.errors - before.errors, 1U);
}

TEST_P(UserModeContract, ServesManyThreadsAtOnce) {
  constexpr int kThreads = 8;
  constexpr int kKeys = 40;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.push_back(start_thread("contract", [this, t](const std::stop_token&) {
        for (int i = 0; i < kKeys; ++i) {
          const std::string key = std::to_string(t) + "/" + std::to_string(i);
          const Buffer value = RandomValue(static_cast<std::size_t>(i) * 500,
                                           static_cast<std::uint64_t>(t * kKeys + i));
          Set(key, value);
          EXPECT_TRUE(Get(as_bytes(key)) == value) << key;
        }
      }));
    }
  }
  EXPECT_EQ(Info().entries, static_cast<std::uint64_t>(kThreads * kKeys));
}

// Sequential mode.

TEST_P(SequentialModeContract, AllocatesAnIdAndGivesBackWhatWasStored) {
  const Buffer first = Allocate("first");
  const Buffer second = Allocate("second");
  EXPECT_EQ(first.size(), kSequentialKeyLen);
  EXPECT_EQ(second.size(), kSequentialKeyLen);
  EXPECT_NE(first, second);
  EXPECT_EQ(GetText(as_text(first)), "first");
  EXPECT_EQ(GetText(as_text(second)), "second");
  EXPECT_EQ(Info().mode, NamespaceMode::kSequential);
}

TEST_P(SequentialModeContract, AllocatesAnIdForIdenticalData) {
  EXPECT_NE(Allocate("same"), Allocate("same"));
  EXPECT_EQ(Info().entries, 2U);
}

TEST_P(SequentialModeContract, ReplacesTheValueOfALiveId) {
  const Buffer id = Allocate("first");
  EXPECT_EQ(Set(as_text(id), "second"), id);
  EXPECT_EQ(GetText(as_text(id)), "second");
  EXPECT_EQ(Set(as_text(id), "second"), id);
  EXPECT_EQ(Info().entries, 1U);
}

TEST_P(SequentialModeContract, RefusesIdsThatItDidNotGive) {
  Allocate("first");
  Buffer unknown(kSequentialKeyLen);
  store_le<std::uint64_t>(unknown.data(), 1000);
  EXPECT_EQ(SetError(unknown, as_bytes("value")), Errc::kInvalidArgument);
  EXPECT_EQ(SetError(as_bytes("abc"), as_bytes("value")), Errc::kInvalidArgument);
  EXPECT_EQ(Get(unknown), std::nullopt);
  EXPECT_FALSE(Exists(unknown));
  EXPECT_EQ(Check(unknown), CheckVerdict::kMissing);
  EXPECT_EQ(Info().entries, 1U);
}

TEST_P(SequentialModeContract, NeverGivesAnIdTwice) {
  std::set<Buffer> ids;
  for (int i = 0; i < 50; ++i) {
    const Buffer id = Allocate("value");
    EXPECT_TRUE(ids.insert(id).second);
    if (i % 3 == 0) {
      EXPECT_TRUE(Remove(id));
    }
    if (i % 3 == 1) Set(as_text(id), "other");
  }
}

TEST_P(SequentialModeContract, RemovesAnIdForGood) {
  const Buffer id = Allocate("value");
  EXPECT_TRUE(Remove(id));
  EXPECT_FALSE(Remove(id));
  EXPECT_EQ(Get(id), std::nullopt);
  EXPECT_EQ(Length(id), std::nullopt);
  EXPECT_EQ(SetError(id, as_bytes("again")), Errc::kInvalidArgument);
}

TEST_P(SequentialModeContract, ScansIdsInOrder) {
  std::vector<std::string> expected;
  for (int i = 0; i < 300; ++i) expected.emplace_back(as_text(Allocate("value")));
  Set(expected[7], "an update keeps its place");
  Remove(as_bytes(expected[9]));
  expected.erase(expected.begin() + 9);
  EXPECT_EQ(ScanKeys(), expected);
}

TEST_P(SequentialModeContract, KeepsTheLongestValue) {
  const Buffer longest = RandomValue(kValueLenMax, 2);
  const Buffer id = Set("", longest);
  EXPECT_TRUE(Get(id) == longest);
  EXPECT_EQ(Length(id), kValueLenMax);
  EXPECT_EQ(Check(id), CheckVerdict::kGood);
}

}  // namespace qsfs::zdb
