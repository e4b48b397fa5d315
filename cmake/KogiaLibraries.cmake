# Third-party libraries. Everything comes from Debian packages; Highway's headers (newer than
# Debian 12 has) are unpacked by tools/deps.sh into the cache folder that KOGIA_DEPS names.
if(DEFINED ENV{KOGIA_CACHE})
  set(_kogia_cache "$ENV{KOGIA_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(_kogia_cache "$ENV{XDG_CACHE_HOME}/kogia")
else()
  set(_kogia_cache "$ENV{HOME}/.cache/kogia")
endif()
set(KOGIA_CACHE_DIR "${_kogia_cache}" CACHE PATH "Where downloaded packages are kept between clones")

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(spdlog REQUIRED)
find_package(simdjson 3 REQUIRED)
find_package(CLI11 2 REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
find_package(OpenSSL 3 REQUIRED COMPONENTS Crypto)

# Highway 1.2: 1.0.3 (Debian 12) truncates in its bf16 conversion. Headers only.
find_path(KOGIA_HIGHWAY_INCLUDE hwy/highway.h
          PATHS "${KOGIA_CACHE_DIR}/deps/highway/usr/include" /usr/include NO_DEFAULT_PATH)
if(NOT KOGIA_HIGHWAY_INCLUDE)
  message(FATAL_ERROR "Highway headers not found: run tools/deps.sh (./start does it)")
endif()
add_library(kogia_highway INTERFACE)
target_include_directories(kogia_highway SYSTEM INTERFACE "${KOGIA_HIGHWAY_INCLUDE}")
