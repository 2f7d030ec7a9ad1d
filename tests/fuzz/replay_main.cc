// Runs the files of a corpus through a fuzz target where libFuzzer is not built in, so that every
// input that once found a fault is a regression test of the ordinary build.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  std::size_t files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      const std::vector<char> input{std::istreambuf_iterator<char>(in), {}};
      if (!in.is_open() || in.bad()) {
        std::fprintf(stderr, "%s: cannot be read\n", entry.path().c_str());
        return 1;
      }
      // Named before it runs: after a crash, the last line says which input did it.
      std::printf("%s\n", entry.path().c_str());
      std::fflush(stdout);
      LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
      ++files;
    }
  }
  if (files == 0) {
    std::fprintf(stderr, "usage: %s CORPUS_DIRECTORY...  (found no file)\n", argv[0]);
    return 1;
  }
  return 0;
}
