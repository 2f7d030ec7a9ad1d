// The configuration of a volume: everything of a zstor.toml, plus the tables [volume], [cache],
// [archive] and [metrics]. docs/configuration.md describes each key.
//
// Pure, but for load_config(). Secrets never appear in messages. This is not the place for what a
// program was told on its command line.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/disk.h"
#include "base/result.h"
#include "crypto/secret.h"
#include "zdb/backend.h"
#include "zstor/manifest.h"
#include "zstor/meta_store.h"
#include "zstor/placement.h"

namespace qsfs::zstor {

// A configuration file longer than this is refused.
inline constexpr std::uint64_t kConfigSizeMax = kMiB;
// More backends than this (data and meta together) are refused.
inline constexpr std::size_t kBackendsMax = 4096;
inline constexpr std::size_t kMetaBackendsMax = 64;
inline constexpr std::size_t kVolumeNameLenMax = 255;
// The key of a value on a meta backend is "/{prefix}/{name}" and has at most zdb::kKeyLenMax bytes.
inline constexpr std::size_t kMetaPrefixLenMax = zdb::kKeyLenMax - kMetaNameLenMax - 2;
inline constexpr std::size_t kPasswordLenMax = 255;
// What header, tag and padding add to a stripe, at most: stripe_size + this fits a value of a
// 0-DB even when k is 1.
inline constexpr std::uint64_t kStripeOverheadMax = 4 * kKiB;
inline constexpr std::uint32_t kWorkersMax = 256;
// Data keys that were changed and still open something.
inline constexpr std::size_t kOldKeysMax = 16;
inline constexpr std::uint64_t kReadaheadMax = 64 * kMiB;
// Of zstd; beyond, it takes hundreds of MiB of memory.
inline constexpr int kCompressionLevelMax = 19;
// More messages than this are counted, not listed.
inline constexpr std::size_t kConfigMessagesMax = 50;

// A short secret text. Wiped when the last copy goes; copies share it. Immutable, hence
// thread-safe. Has no operator<< on purpose.
class Password {
 public:
  Password() = default;  // None.
  explicit Password(std::string_view text);

  // Valid as long as this object or a copy of it lives. Never log it.
  [[nodiscard]] std::string_view reveal() const;
  [[nodiscard]] bool empty() const { return text_ == nullptr; }
  bool operator==(const Password& other) const { return reveal() == other.reveal(); }

 private:
  struct Wiped;
  std::shared_ptr<const Wiped> text_;
};

using Uuid = std::array<std::byte, 16>;
// 8-4-4-4-12 lower-case hexadecimal digits.
std::string uuid_to_string(const Uuid& uuid);
// Accepts the same in either case; nullopt for anything else.
std::optional<Uuid> parse_uuid(std::string_view text);

// What manifests name a backend by (BackendId): the first 16 bytes of BLAKE2b-256 over
// ("qsfs backend v1", 0, canonical address, 0, namespace). It does not depend on the password, the
// role, the place in the file or the spelling of the address.
// The address with a literal IP in its one canonical form and a host name in lower case.
std::string canonical_address(const zdb::BackendAddress& address);
BackendId make_backend_id(const zdb::BackendAddress& address, std::string_view name_space);

struct BackendConfig {
  zdb::BackendAddress address;
  std::string name_space = "default";
  Password password;
  BackendId id{};  // make_backend_id(address, name_space).

  // "address/namespace", for messages.
  [[nodiscard]] std::string to_string() const;
};

// Makes a BackendConfig whose id fits.
BackendConfig make_backend_config(zdb::BackendAddress address, std::string_view name_space,
                                  Password password);

struct GroupConfig {
  std::vector<BackendConfig> backends;
};

// kAes: AES-256-GCM, or XChaCha20-Poly1305 where the CPU has no AES.
enum class EncryptionAlgorithm { kAes, kXChaCha20Poly1305 };

struct EncryptionConfig {
  EncryptionAlgorithm algorithm = EncryptionAlgorithm::kAes;
  std::shared_ptr<const crypto::SecretKey> key;  // Shared: copies of a Config use one. Never null
                                                 // after parsing.
  // Former data keys, newest first: what was stored under them stays readable. Of the data only.
  std::vector<std::shared_ptr<const crypto::SecretKey>> old_keys;
};

struct CompressionConfig {
  Compression algorithm = Compression::kZstd;
  int level = 1;  // Of zstd: 1 to kCompressionLevelMax.
};

struct MetaConfig {
  std::string prefix;
  // The data's where the file has no [meta.config.encryption].
  EncryptionConfig encryption;
  bool has_own_key = false;
  std::vector<BackendConfig> backends;
};

enum class Durability { kLocal, kRemote };
enum class OnFull { kBlock, kEnospc };

struct VolumeConfig {
  std::string name;  // Empty: none given.
  // From [volume] uuid, else derived from the data key and the meta prefix, so that the same file
  // means the same volume on every machine.
  Uuid uuid{};
  bool has_own_uuid = false;
  Durability durability = Durability::kLocal;
  Duration rotate_after = std::chrono::seconds(60);
  std::uint64_t size_bytes = 0;  // statfs total; 0: from the backends.
};

struct CacheConfig {
  std::uint64_t limit_bytes = 0;  // max_zdb_data_dir_size; 0: no limit.
  OnFull on_full = OnFull::kBlock;
  std::uint64_t readahead_bytes = 8 * kMiB;
};

struct ArchiveConfig {
  std::uint64_t stripe_size_bytes = kMiB;
  // Where the file does not say: 64 MiB, or less under a small cache limit (see
  // default_segment_size).
  std::uint64_t segment_size_bytes = 64 * kMiB;
  bool has_own_segment_size = false;
  std::uint32_t workers = 0;                  // 0: as many as there are CPUs.
  std::uint64_t bandwidth_bytes_per_sec = 0;  // 0: no limit.
  Duration dead_after = std::chrono::minutes(15);
  Duration scrub_interval = std::chrono::hours(7 * 24);  // 0: never.
};

struct ListenAddress {
  std::string host;        // A literal address, or a name; "::" for all.
  std::uint16_t port = 0;  // 0: any free one.
  bool operator==(const ListenAddress&) const = default;
  [[nodiscard]] std::string to_string() const;
};

// A value: cheap to copy but for its vectors; pass it on as shared_ptr<const Config>.
struct Config {
  ShardRule shards;  // minimal_shards, expected_shards, redundant_groups, redundant_nodes.
  std::vector<GroupConfig> groups;
  MetaConfig meta;
  EncryptionConfig encryption;
  CompressionConfig compression;

  // Of zstor; an empty text: not given.
  std::string root;
  std::string socket;  // Control socket; empty: <data dir>/control.sock.
  std::string pid_file;
  std::string zdb_data_dir_path;  // The volume's data directory.
  std::string zdbfs_mountpoint;   // Accepted; the mount point is an argument of qsfs-fs.

  VolumeConfig volume;
  CacheConfig cache;
  ArchiveConfig archive;
  std::optional<ListenAddress> metrics_listen;  // [metrics] listen, else [::]:prometheus_port.

  [[nodiscard]] std::size_t data_backend_count() const;
};

// What validate() accepts. The defaults are for users; for_simulation() lets tests use tiny
// segments.
struct ConfigLimits {
  std::uint64_t stripe_size_min = 64 * kKiB;
  std::uint64_t stripe_size_max = zdb::kValueLenMax - kStripeOverheadMax;
  std::uint64_t segment_size_min = 4 * kMiB;
  std::uint64_t segment_size_max = kGiB;
  // The cache limit holds at least so many segments: one being written, one being archived, and
  // two being read.
  std::uint64_t segments_in_cache_min = 4;

  static ConfigLimits for_simulation() {
    return {.stripe_size_min = 4 * kKiB, .segment_size_min = 64 * kKiB};
  }
};

// One thing that is wrong. `key` is its dotted path ("archive.stripe_size",
// "groups[0].backends[2].address"); `text` says the rule and the remedy.
struct ConfigProblem {
  std::string key;
  std::string text;
};

// All that is wrong with `config`, in the order of the file; empty when it may be used.
std::vector<ConfigProblem> validate(const Config& config, const ConfigLimits& limits = {});
// What is allowed but unwise (fewer than three meta backends, one server in two groups…).
std::vector<ConfigProblem> find_unwise(const Config& config);

// Messages are "line 12: archive.stripe_size: …" and hold no secret.
struct ParsedConfig {
  std::optional<Config> config;     // Set exactly when `errors` is empty.
  std::vector<std::string> errors;  // All that was found, not only the first.
  std::vector<std::string> warnings;
};

// Pure: parses and validates. Never throws or crashes on any text.
ParsedConfig parse_config(std::string_view text, const ConfigLimits& limits = {});

struct LoadedConfig {
  std::shared_ptr<const Config> config;
  std::vector<std::string> warnings;
};

// Reads and parses the file at `path`. A file that others than its owner can read is a warning,
// and with `strict` an error. kInvalidArgument with all messages, one a line, each beginning with
// `path`; kNotFound, kTooBig, kIo… from the disk.
Result<LoadedConfig> load_config(Disk& disk, const std::string& path, bool strict = false,
                                 const ConfigLimits& limits = {});

// The text that parses to `config`, with comments for people. It holds the keys and the passwords:
// write it to a file of mode 0600 only, and wipe it.
std::string to_toml(const Config& config);
// Overwrites a text that holds secrets, in a way that the compiler cannot leave out.
void wipe_text(std::string& text);

// The uuid of a volume whose file does not give one.
Uuid derive_volume_uuid(const crypto::SecretKey& data_key, std::string_view meta_prefix);

// 64 MiB, or a quarter of the cache limit where that is less (at least limits.segment_size_min), as
// a multiple of the stripe size.
std::uint64_t default_segment_size(std::uint64_t cache_limit_bytes, std::uint64_t stripe_size_bytes,
                                   const ConfigLimits& limits = {});

// "8 MiB" (B, KiB, MiB, GiB, TiB; the space may be left out; a bare number is bytes).
// kInvalidArgument says the forms.
Result<std::uint64_t> parse_size(std::string_view text);
// The shortest exact form: "8 MiB", "1000 B".
std::string format_size(std::uint64_t bytes);
// "15m" (ms, s, m, h, d; a bare number is seconds).
Result<Duration> parse_duration(std::string_view text);
std::string format_duration(Duration duration);

std::string_view to_string(EncryptionAlgorithm algorithm);
std::string_view to_string(Compression algorithm);
std::string_view to_string(Durability durability);
std::string_view to_string(OnFull on_full);

}  // namespace qsfs::zstor
