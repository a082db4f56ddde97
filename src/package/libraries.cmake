# SPDX-License-Identifier: MIT
# libesker.so and libesker.a, both showing esker_* and nothing else, and what
# an installed esker brings along: pkg-config and CMake package files.

# The simulated disk serves tests and stays out; libesker-sim (below) is all of it and the disk.
set(room_objects "")
set(sim_room_objects "")
foreach(room ${ESKER_ROOMS_BUILT})
  list(APPEND sim_room_objects $<TARGET_OBJECTS:room_${room}>)
  list(APPEND room_objects $<FILTER:$<TARGET_OBJECTS:room_${room}>,EXCLUDE,/[id][ob]_sim[^/]*$>)
endforeach()
set(private_libraries ck uring lz4 zstd Threads::Threads)

# -z nodelete: thread-exit destructors point into the library, so it stays mapped.
add_library(esker_shared SHARED ${room_objects})
set_target_properties(esker_shared PROPERTIES LINKER_LANGUAGE C OUTPUT_NAME esker EXPORT_NAME esker
  VERSION ${PROJECT_VERSION} SOVERSION 0 LINK_DEPENDS ${CMAKE_SOURCE_DIR}/src/package/esker.map)
target_link_libraries(esker_shared PRIVATE esker_flags PkgConfig::CK PkgConfig::URING PkgConfig::LZ4
  PkgConfig::ZSTD Threads::Threads)
target_link_options(esker_shared PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/src/package/esker.map
  -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now -Wl,--as-needed)
if(NOT ESKER_INSTRUMENT)
  # Sanitizer runtimes are found in the program that loads the library.
  target_link_options(esker_shared PRIVATE -Wl,--no-undefined)
endif()
target_include_directories(esker_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# The rooms' names are made local to one object file, so that a program may
# have a wal_append of its own.
function(esker_add_archive target output_name)
  set(one_object ${CMAKE_BINARY_DIR}/${target}_rooms.o)
  add_custom_command(OUTPUT ${one_object}
    COMMAND ${CMAKE_LINKER} -r -o ${one_object} ${ARGN}
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden --wildcard --keep-global-symbol=esker_* ${one_object}
    DEPENDS ${ARGN} COMMAND_EXPAND_LISTS VERBATIM)
  add_library(${target} STATIC ${one_object})
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE C OUTPUT_NAME ${output_name})
  target_link_libraries(${target} INTERFACE ${private_libraries})
  target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endfunction()
esker_add_archive(esker_static esker ${room_objects})

# ---- libesker-sim: for embedders' tests, linked instead of libesker ------------

add_library(esker_sim_shared SHARED ${sim_room_objects})
set_target_properties(esker_sim_shared PROPERTIES LINKER_LANGUAGE C OUTPUT_NAME esker-sim
  EXPORT_NAME esker_sim VERSION ${PROJECT_VERSION} SOVERSION 0
  LINK_DEPENDS ${CMAKE_SOURCE_DIR}/src/package/esker.map)
target_link_libraries(esker_sim_shared PRIVATE esker_flags PkgConfig::CK PkgConfig::URING PkgConfig::LZ4
  PkgConfig::ZSTD Threads::Threads)
target_link_options(esker_sim_shared PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/src/package/esker.map
  -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now -Wl,--as-needed)
target_include_directories(esker_sim_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
esker_add_archive(esker_sim_static esker-sim ${sim_room_objects})

# ---- Install ----------------------------------------------------------------

include(CMakePackageConfigHelpers)
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/esker)
install(TARGETS esker_shared EXPORT eskerTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS esker_sim_shared EXPORT eskerTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS esker_static esker_sim_static EXPORT eskerTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/esker/esker.h include/esker/esker_sim.h include/esker/version.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/esker)
install(EXPORT eskerTargets NAMESPACE esker:: DESTINATION ${cmake_dir})
configure_package_config_file(src/package/eskerConfig.cmake.in ${CMAKE_BINARY_DIR}/eskerConfig.cmake
  INSTALL_DESTINATION ${cmake_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/eskerConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/eskerConfig.cmake ${CMAKE_BINARY_DIR}/eskerConfigVersion.cmake
  DESTINATION ${cmake_dir})
# The prefix follows from where esker.pc lies, so an installed tree can be moved.
file(RELATIVE_PATH pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(src/package/esker.pc.in ${CMAKE_BINARY_DIR}/esker.pc @ONLY)
configure_file(src/package/esker-sim.pc.in ${CMAKE_BINARY_DIR}/esker-sim.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/esker.pc ${CMAKE_BINARY_DIR}/esker-sim.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
