# qsfs_options carries every compile flag. Libraries, programs and tests are declared by the
# functions below and by nothing else, so that the flags and the link graph are readable here.
add_library(qsfs_options INTERFACE)
target_include_directories(qsfs_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(qsfs_options INTERFACE
  _FILE_OFFSET_BITS=64
  SPDLOG_FMT_EXTERNAL
  QSFS_VERSION="${PROJECT_VERSION}")
target_compile_options(qsfs_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast -Werror
  -Wno-missing-field-initializers -fno-omit-frame-pointer -g
  # g++ 12 sees overlaps and overflows in std::string and std::vector that are not there (GCC bugs 105329, 105651).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<CONFIG:Release>>:-Wno-restrict;-Wno-stringop-overflow;-Wno-stringop-overread;-Wno-array-bounds;-Wno-maybe-uninitialized>
  $<$<CONFIG:Release>:-O3>
  $<$<CONFIG:Dev>:-O1>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Wthread-safety-beta>)
target_link_libraries(qsfs_options INTERFACE Threads::Threads fmt::fmt)
if(QSFS_SANITIZE)
  target_compile_options(qsfs_options INTERFACE -fsanitize=${QSFS_SANITIZE}
    -fno-sanitize-recover=all)
  target_link_options(qsfs_options INTERFACE -fsanitize=${QSFS_SANITIZE})
endif()
# The default flags of a Release build define NDEBUG; assertions stay on in every build of QSFS.
set(CMAKE_CXX_FLAGS_RELEASE "")

function(qsfs_lto target)
  if(QSFS_LTO)
    set_property(TARGET ${target} PROPERTY INTERPROCEDURAL_OPTIMIZATION ON)
  endif()
endfunction()

# qsfs_library(NAME SOURCES f.cc... [DEPS target...] [PRIVATE_DEPS target...])
function(qsfs_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(qsfs_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(qsfs_${name} PUBLIC qsfs_options ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  qsfs_lto(qsfs_${name})
endfunction()

# qsfs_program(NAME SOURCES f.cc... DEPS target...)
function(qsfs_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE qsfs_options ${ARG_DEPS})
  qsfs_lto(${name})
endfunction()

# qsfs_test(NAME LABEL label SOURCES f.cc... DEPS target... [TIMEOUT seconds]): one gtest binary, one ctest entry.
function(qsfs_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE qsfs_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# qsfs_bench(NAME SOURCES f.cc... DEPS target...)
function(qsfs_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE qsfs_options ${ARG_DEPS} benchmark::benchmark)
  qsfs_lto(${name})
endfunction()
