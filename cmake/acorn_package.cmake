# What makes the installed library findable: a CMake package (find_package(acorn)) and pkg-config files, acorn.pc, acorn-posix.pc
# and, where it was built, acorn-signature.pc. All of them find their folder by their own place, so that an installed tree can be moved or packed.
#
#   ACORN_PC_PORT_LIBRARIES   libraries that the POSIX port was built with, for acorn-posix.pc (ports/posix sets it)
include(CMakePackageConfigHelpers)
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/acorn-config.cmake.in" "${PROJECT_BINARY_DIR}/acorn-config.cmake"
  INSTALL_DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/acorn")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/acorn-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(EXPORT acorn-targets NAMESPACE acorn:: DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/acorn" COMPONENT library)
install(FILES "${PROJECT_BINARY_DIR}/acorn-config.cmake" "${PROJECT_BINARY_DIR}/acorn-config-version.cmake"
  DESTINATION "${CMAKE_INSTALL_LIBDIR}/cmake/acorn" COMPONENT library)

get_property(ACORN_PC_PORT_LIBRARIES GLOBAL PROPERTY ACORN_PC_PORT_LIBRARIES)
string(REPLACE ";" "" ACORN_PC_PORT_LIBRARIES "${ACORN_PC_PORT_LIBRARIES}")
file(RELATIVE_PATH ACORN_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" ACORN_PC_PREFIX "${ACORN_PC_PREFIX}")
set(pkg_config_files acorn acorn-posix)
if(TARGET acorn_signature)
  list(APPEND pkg_config_files acorn-signature)
endif()
foreach(name IN LISTS pkg_config_files)
  configure_file("${PROJECT_SOURCE_DIR}/cmake/${name}.pc.in" "${PROJECT_BINARY_DIR}/${name}.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/${name}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT library)
endforeach()
