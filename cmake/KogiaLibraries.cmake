# Third-party libraries. Everything comes from Debian packages; Highway's headers (newer than
# Debian 12 has) are unpacked by tools/deps.sh into the cache folder that KOGIA_DEPS names.
include("${CMAKE_CURRENT_LIST_DIR}/KogiaCacheDir.cmake")
set(KOGIA_CACHE_DIR "${KOGIA_CACHE_DIR}" CACHE PATH "Where downloaded packages are kept between clones")

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(spdlog REQUIRED)
find_package(simdjson REQUIRED)  # its own version file accepts no other minor version than the one named
if(simdjson_VERSION VERSION_LESS 3)
  message(FATAL_ERROR "simdjson ${simdjson_VERSION} found, expected 3.0 or later")
endif()
find_package(CLI11 2 REQUIRED)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
if(KOGIA_TEXT)  # corpora come packed, run files are TOML
  find_package(ZLIB REQUIRED)
  pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
  # toml++ 3.3: headers alone. Its package's own target links a shared library instead.
  find_path(KOGIA_TOML_INCLUDE toml++/toml.h REQUIRED)
  add_library(kogia_toml INTERFACE)
  target_include_directories(kogia_toml SYSTEM INTERFACE "${KOGIA_TOML_INCLUDE}")
endif()

# xxHash 0.8: one header for every processor, so that of the building system serves a cross build too;
# it is copied because the folder it lies in holds the system's own headers.
find_path(KOGIA_XXHASH_FOLDER xxhash.h PATHS /usr/include NO_CMAKE_FIND_ROOT_PATH REQUIRED)
configure_file("${KOGIA_XXHASH_FOLDER}/xxhash.h" "${CMAKE_BINARY_DIR}/xxhash/xxhash.h" COPYONLY)
add_library(kogia_xxhash INTERFACE)
target_include_directories(kogia_xxhash SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/xxhash")

# Highway 1.2: 1.0.3 (Debian 12) truncates in its bf16 conversion. Headers only.
set(KOGIA_HIGHWAY_INCLUDE "")
foreach(folder "${KOGIA_CACHE_DIR}/deps/highway/usr/include" "${CMAKE_SYSROOT}/usr/local/include"
               "${CMAKE_SYSROOT}/usr/include")
  if(EXISTS "${folder}/hwy/base.h")
    file(STRINGS "${folder}/hwy/base.h" lines REGEX "^#define HWY_(MAJOR|MINOR) [0-9]+$")
    list(TRANSFORM lines REPLACE "^#define HWY_[A-Z]+ " "")
    list(JOIN lines "." version)
    if(version VERSION_GREATER_EQUAL 1.2)
      set(KOGIA_HIGHWAY_INCLUDE "${folder}")
      break()
    endif()
  endif()
endforeach()
if(NOT KOGIA_HIGHWAY_INCLUDE)
  message(FATAL_ERROR "No Highway headers of version 1.2 or later in ${KOGIA_CACHE_DIR}/deps/highway or "
                      "/usr/include: run tools/deps.sh (./start does it)")
endif()
add_library(kogia_highway INTERFACE)
target_include_directories(kogia_highway SYSTEM INTERFACE "${KOGIA_HIGHWAY_INCLUDE}")
