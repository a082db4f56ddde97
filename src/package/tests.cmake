# SPDX-License-Identifier: MIT
# Every test. Unit tests are found by name (src/<room>/*_test.c); stress, prop
# and fuzz programs by folder, and link the rooms that their first lines name:
#   /* rooms: format wal */

set(ESKER_TEST_ENVIRONMENT
  ESKER_SOURCE_DIR=${CMAKE_SOURCE_DIR}
  ESKER_BIN=${CMAKE_BINARY_DIR}/esker
  ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1
  UBSAN_OPTIONS=print_stacktrace=1
  TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:allow_addr2line=1)

# esker_add_test(NAME COMMAND ... [LABELS ...] [TIMEOUT seconds])
function(esker_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "COMMAND;LABELS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  set(full "${ESKER_TEST_PREFIX}${name}")
  add_test(NAME ${full} COMMAND ${arg_COMMAND})
  set_tests_properties(${full} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}" ENVIRONMENT
    "${ESKER_TEST_ENVIRONMENT}")
endfunction()

# The rooms that a program's first line names, as targets; NOTFOUND while one of them has no sources.
function(esker_rooms_named source out)
  file(STRINGS ${source} first LIMIT_COUNT 2)
  set(targets room_db)
  set(names db)
  if("${first}" MATCHES "rooms: ([a-z ]+)")
    string(STRIP "${CMAKE_MATCH_1}" names)
    string(REPLACE " " ";" names "${names}")
    list(TRANSFORM names PREPEND room_ OUTPUT_VARIABLE targets)
  endif()
  foreach(name ${names})
    if(NOT name IN_LIST ESKER_ROOMS_BUILT AND NOT (name STREQUAL "tools" AND TARGET room_tools))
      message(STATUS "${source}: skipped until src/${name} has sources")
      set(targets NOTFOUND)
      break()
    endif()
  endforeach()
  set(${out} ${targets} PARENT_SCOPE)
endfunction()

# Tests that start threads, or open databases, which do, run under the race
# detector too. A law runs on the simulated disk, in one thread, unless it says otherwise.
function(esker_labels_of source label out)
  set(sign "pthread_create|workers_acquire|esker_open\\(|db_open")
  if(label STREQUAL "prop")
    set(sign "pthread_create")
  endif()
  file(STRINGS ${source} starts_threads REGEX "${sign}")
  set(labels ${label})
  if(starts_threads)
    list(APPEND labels threads)
  endif()
  set(${out} ${labels} PARENT_SCOPE)
endfunction()

function(esker_add_program_test source label rooms)
  cmake_parse_arguments(PARSE_ARGV 3 arg "" "TIMEOUT" "ARGS;LIBRARIES;LABELS")
  get_filename_component(name ${source} NAME_WE)
  esker_labels_of(${source} ${label} labels)
  list(APPEND labels ${arg_LABELS})
  list(REMOVE_DUPLICATES labels)
  if(ESKER_TESTS STREQUAL "threads" AND NOT "threads" IN_LIST labels)
    return()
  endif()
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ${rooms} ${arg_LIBRARIES})
  esker_add_test(${name} COMMAND ${name} ${arg_ARGS} LABELS ${labels} TIMEOUT ${arg_TIMEOUT})
endfunction()

# ---- Unit tests -------------------------------------------------------------

if(CMOCKA_FOUND)
  foreach(room ${ESKER_ROOMS})
    file(GLOB tests CONFIGURE_DEPENDS src/${room}/*_test.c)
    foreach(test ${tests})
      esker_add_program_test(${test} unit room_${room} LIBRARIES PkgConfig::CMOCKA)
    endforeach()
  endforeach()
  # The same on a processor without wide registers.
  foreach(name cpu_test block_test filter_test segment_test)
    if(TARGET ${name})
      esker_add_test(${name}_scalar COMMAND ${CMAKE_COMMAND} -E env ESKER_CPU=scalar $<TARGET_FILE:${name}>
                     LABELS unit)
    endif()
  endforeach()
  if(CMAKE_CXX_COMPILER)
    esker_add_program_test(${CMAKE_SOURCE_DIR}/src/base/header_cxx_test.cc unit room_base)
  endif()
  if(TARGET room_tools)
    file(GLOB tests CONFIGURE_DEPENDS src/tools/*_test.c)
    foreach(test ${tests})
      esker_add_program_test(${test} unit room_tools LIBRARIES PkgConfig::CMOCKA)
    endforeach()
    file(GLOB scripts CONFIGURE_DEPENDS src/tools/*_test.sh)
    foreach(script ${scripts})
      get_filename_component(name ${script} NAME_WE)
      if(NOT ESKER_TESTS STREQUAL "threads")
        esker_add_test(${name} COMMAND sh ${script} LABELS tool)
      endif()
    endforeach()
  endif()
else()
  message(STATUS "cmocka not found: no unit tests")
endif()

# ---- Laws and stress --------------------------------------------------------

set(cmocka $<$<BOOL:${CMOCKA_FOUND}>:PkgConfig::CMOCKA>)
file(GLOB laws CONFIGURE_DEPENDS proptest/*.c)
foreach(law ${laws})
  esker_rooms_named(${law} rooms)
  if(rooms)
    esker_add_program_test(${law} prop "${rooms}" TIMEOUT 300 LIBRARIES ${cmocka})
  endif()
endforeach()

file(GLOB stresses CONFIGURE_DEPENDS stress/*.c)
foreach(stress ${stresses})
  esker_rooms_named(${stress} rooms)
  if(rooms)
    esker_add_program_test(${stress} stress "${rooms}" ARGS 2 LABELS threads)
  endif()
endforeach()

# Protocol models: every state of each, and of its mutants (stress/spin/README.md).
if(ESKER_TESTS STREQUAL "all")
  foreach(model epoch visible rotation)
    esker_add_test(spin_${model} LABELS stress
      COMMAND sh ${CMAKE_SOURCE_DIR}/stress/spin/spin_check.sh ${model})
    set_tests_properties(${ESKER_TEST_PREFIX}spin_${model} PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
endif()

# Models: a harness over one lock-free part each, as a program of real threads; then
# with each of its seeded faults, which must be seen.
file(GLOB models CONFIGURE_DEPENDS stress/model/model_*.c)
foreach(model ${models})
  esker_rooms_named(${model} rooms)
  if(rooms)
    get_filename_component(name ${model} NAME_WE)
    esker_add_program_test(${model} stress "${rooms}" LABELS threads model)
    esker_add_test(${name}_mutants LABELS stress threads model
      COMMAND sh ${CMAKE_SOURCE_DIR}/stress/model/mutants.sh $<TARGET_FILE:${name}>)
  endif()
endforeach()

# ---- Fuzz targets -----------------------------------------------------------

file(GLOB targets CONFIGURE_DEPENDS fuzz/fuzz_*.c)
foreach(target ${targets})
  esker_rooms_named(${target} rooms)
  get_filename_component(name ${target} NAME_WE)
  string(REPLACE "fuzz_" "" codec ${name})
  if(NOT rooms)
    continue()
  endif()
  if(ESKER_FUZZ)
    add_executable(${name} ${target})
    target_link_libraries(${name} PRIVATE ${rooms})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  elseif(NOT ESKER_TESTS STREQUAL "threads")
    add_executable(fuzz_regress_${codec} ${target} fuzz/regress_main.c)
    target_link_libraries(fuzz_regress_${codec} PRIVATE ${rooms})
    esker_add_test(fuzz_regress_${codec} LABELS fuzz-regress
      COMMAND fuzz_regress_${codec} --mutations 200 ${CMAKE_SOURCE_DIR}/fuzz/corpus/${codec})
  endif()
endforeach()

# ---- House checks: once, not in every build ---------------------------------

set(package ${CMAKE_SOURCE_DIR}/src/package)
if(ESKER_TESTS STREQUAL "all" AND Python3_FOUND)
  set(tidy ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/src/tools/tidy.py)
  esker_add_test(tidy LABELS tidy COMMAND ${tidy})
  esker_add_test(tidy_self_test LABELS tidy COMMAND ${tidy} --self-test)
  if(TARGET esker_cli)
    # Needs libxxhash, liblz4 and libzstd at run time, which are here if esker could be built.
    esker_add_test(esker_dump LABELS tool
      COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/python/esker_dump_test.py)
  endif()
endif()
if(ESKER_TESTS STREQUAL "all")
  esker_add_test(headers_alone LABELS house
    COMMAND sh ${package}/headers_alone.sh ${CMAKE_SOURCE_DIR} ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER})
  esker_add_test(amalgamation LABELS house
    COMMAND sh ${package}/amalgamation.sh ${CMAKE_SOURCE_DIR} ${CMAKE_C_COMPILER})
endif()
if(ESKER_TESTS STREQUAL "all" AND TARGET esker_shared AND NOT ESKER_INSTRUMENT)
  esker_add_test(install LABELS house TIMEOUT 300
    COMMAND sh ${package}/install_test.sh ${CMAKE_BINARY_DIR} ${CMAKE_C_COMPILER}
    ${CMAKE_SOURCE_DIR}/docs/simulation.md)
  if(Python3_FOUND)
    esker_add_test(exports LABELS house
      COMMAND ${Python3_EXECUTABLE} ${package}/exports.py ${CMAKE_NM}
      ${CMAKE_SOURCE_DIR}/include/esker/esker.h $<TARGET_FILE:esker_shared> $<TARGET_FILE:esker_static>)
    esker_add_test(exports_sim LABELS house
      COMMAND ${Python3_EXECUTABLE} ${package}/exports.py ${CMAKE_NM}
      ${CMAKE_SOURCE_DIR}/include/esker/esker.h,${CMAKE_SOURCE_DIR}/include/esker/esker_sim.h
      $<TARGET_FILE:esker_sim_shared> $<TARGET_FILE:esker_sim_static>)
  endif()
  file(GLOB readme CONFIGURE_DEPENDS README.md)
  if(Python3_FOUND AND readme)
    esker_add_test(readme_example LABELS house
      COMMAND ${Python3_EXECUTABLE} ${package}/readme_example.py ${readme} ${CMAKE_C_COMPILER}
      $<TARGET_FILE:esker_static> ${CMAKE_SOURCE_DIR}/include -lck -luring -llz4 -lzstd -pthread)
  endif()
endif()

# ---- Mutants: the engine with seeded faults, in one library that nothing else links ----

if(ESKER_TESTS STREQUAL "all" AND "db" IN_LIST ESKER_ROOMS_BUILT)
  set(mutant_sources "")
  foreach(room ${ESKER_ROOMS_BUILT})
    file(GLOB sources CONFIGURE_DEPENDS src/${room}/*.c)
    list(FILTER sources EXCLUDE REGEX "_test\\.c$")
    list(APPEND mutant_sources ${sources})
  endforeach()
  add_library(esker_mutants STATIC ${mutant_sources})
  target_compile_definitions(esker_mutants PUBLIC ESKER_MUTANTS ESKER_DEBUG)
  target_link_libraries(esker_mutants PUBLIC esker_flags PkgConfig::CK PkgConfig::URING PkgConfig::LZ4
    PkgConfig::ZSTD Threads::Threads)
  add_executable(mutants_test proptest/mutants/mutants_test.c)
  target_link_libraries(mutants_test PRIVATE esker_mutants)
  esker_add_test(mutants_test LABELS prop COMMAND mutants_test TIMEOUT 600)
  if(TARGET esker_shared)
    esker_add_test(product_without_mutants LABELS house
      COMMAND sh ${package}/without_mutants.sh ${CMAKE_NM} $<TARGET_FILE:mutants_test>
      $<TARGET_FILE:esker_shared> $<TARGET_FILE:esker_static>)
  endif()
endif()
