# kogia_library(NAME FLOOR n [DEPS folder...] [LINK target...])
# Makes the library of one folder of src/ from all its *.cc files. DEPS are other folders, which must
# stand on lower floors (docs/design, "Floors"): an arrow that points up stops the configuration.
# Files in sub-folders named in the folder's own CMakeLists.txt are added there.
function(kogia_library name)
  cmake_parse_arguments(ARG "" "FLOOR" "DEPS;LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cc")
  if(sources)
    add_library(kogia_${name} STATIC ${sources})
    set(scope PUBLIC)
    target_link_libraries(kogia_${name} PRIVATE kogia_flags)
  else()  # headers only
    add_library(kogia_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  set_property(GLOBAL PROPERTY kogia_floor_${name} ${ARG_FLOOR})
  target_include_directories(kogia_${name} ${scope} "${PROJECT_SOURCE_DIR}/src")
  foreach(dep IN LISTS ARG_DEPS)
    get_property(dep_floor GLOBAL PROPERTY kogia_floor_${dep})
    if("${dep_floor}" STREQUAL "")
      message(FATAL_ERROR "src/${name}: unknown or later folder '${dep}' in DEPS")
    endif()
    if(NOT dep_floor LESS ARG_FLOOR)
      message(FATAL_ERROR "src/${name} (floor ${ARG_FLOOR}) may not use src/${dep} (floor ${dep_floor})")
    endif()
    target_link_libraries(kogia_${name} ${scope} kogia_${dep})
  endforeach()
  target_link_libraries(kogia_${name} ${scope} ${ARG_LINK})
endfunction()

# Targets that build all tests of one label; the sanitizer presets build no more than they run.
foreach(label parser threads)
  add_custom_target(tests_${label})
endforeach()

# kogia_add_test(TARGET COMMAND command... [LABELS label...]): a test that runs an executable of ours.
#   parser    reads untrusted input: ./check runs it again under ASan and UBSan
#   threads   starts threads: ./check --full runs it under TSan
#   slow      left out of coverage and TSan runs
function(kogia_add_test target)
  cmake_parse_arguments(ARG "" "" "COMMAND;LABELS" ${ARGN})
  string(REGEX REPLACE "^test_" "" name "${target}")
  add_test(NAME ${name} COMMAND ${ARG_COMMAND})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 900 ENVIRONMENT
    "ASAN_OPTIONS=max_allocation_size_mb=4096:detect_stack_use_after_return=1;UBSAN_OPTIONS=print_stacktrace=1;TSAN_OPTIONS=halt_on_error=1;LLVM_PROFILE_FILE=${CMAKE_BINARY_DIR}/profiles/${name}-%p.profraw")
  foreach(label IN LISTS ARG_LABELS)
    if(TARGET tests_${label})
      add_dependencies(tests_${label} ${target})
    endif()
  endforeach()
endfunction()

# kogia_test(NAME SOURCES file... LINK folder... [LABELS label...]): one GoogleTest program.
function(kogia_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;LABELS" ${ARGN})
  add_executable(test_${name} ${ARG_SOURCES})
  target_include_directories(test_${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_link_libraries(test_${name} PRIVATE kogia_flags GTest::gmock GTest::gtest_main)
  foreach(lib IN LISTS ARG_LINK)
    target_link_libraries(test_${name} PRIVATE kogia_${lib})
  endforeach()
  target_compile_definitions(test_${name} PRIVATE KOGIA_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
                             KOGIA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  kogia_add_test(test_${name} COMMAND test_${name} LABELS ${ARG_LABELS})
endfunction()
