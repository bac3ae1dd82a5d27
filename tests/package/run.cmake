# Installs into a folder, moves the folder, and builds C99 programs against it as another project would. What is installed must
# name no folder of the machine that built it.
#   BUILD, SOURCE, MODEL    the build tree, the repository, a model file;   WORK  a folder of this test's own
#   COMPILER, GENERATOR, LIBDIR, LINK_OPTIONS;   TOOLCHAIN, EMULATOR (a list)   in a cross build
#   ANSWER                  regular expression of what examples/ask.c prints for MODEL
cmake_policy(VERSION 3.25)
file(REMOVE_RECURSE "${WORK}")
set(prefix "${WORK}/moved")
set(package "${SOURCE}/tests/package")
separate_arguments(LINK_OPTIONS)

execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/installed" --strip
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(RENAME "${WORK}/installed" "${prefix}")
foreach(file IN ITEMS include/acorn.h include/acorn_port.h include/acorn_posix.h ${LIBDIR}/libacorn.a ${LIBDIR}/libacorn_port_posix.a
    ${LIBDIR}/cmake/acorn/acorn-config.cmake ${LIBDIR}/pkgconfig/acorn.pc ${LIBDIR}/pkgconfig/acorn-posix.pc bin/acorn)
  if(NOT EXISTS "${prefix}/${file}")
    message(FATAL_ERROR "not installed: ${file}")
  endif()
endforeach()
file(GLOB_RECURSE files "${prefix}/*")
foreach(file IN LISTS files)
  file(STRINGS "${file}" lines)
  foreach(folder IN ITEMS "${SOURCE}" "${BUILD}" "${WORK}")
    string(FIND "${lines}" "${folder}" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${file} names ${folder}")
    endif()
  endforeach()
endforeach()

# With CMake.
set(options "-DCMAKE_PREFIX_PATH=${prefix}")
if(TOOLCHAIN)
  set(options "-DCMAKE_TOOLCHAIN_FILE=${TOOLCHAIN}" "-DCMAKE_FIND_ROOT_PATH=${prefix}")
endif()
execute_process(COMMAND "${CMAKE_COMMAND}" -S "${package}/consumer" -B "${WORK}/build" -G "${GENERATOR}"
  "-DCMAKE_C_COMPILER=${COMPILER}" ${options} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${CMAKE_COMMAND}" --build "${WORK}/build" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${EMULATOR} "${WORK}/build/consumer" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${EMULATOR} "${WORK}/build/consumer_with_port" COMMAND_ERROR_IS_FATAL ANY)

# With a C compiler alone.
set(compile "${COMPILER}" -std=c99 -Wall -Wextra -Werror -pedantic)
execute_process(COMMAND ${compile} "-I${prefix}/include" "${package}/consumer/main.c" "${prefix}/${LIBDIR}/libacorn.a"
  ${LINK_OPTIONS} -o "${WORK}/plain" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${EMULATOR} "${WORK}/plain" COMMAND_ERROR_IS_FATAL ANY)

# With pkg-config: the program of the README as the compiler links by itself, and static, with a question.
find_program(pkg_config NAMES pkg-config pkgconf)
if(NOT pkg_config)
  message(STATUS "no pkg-config: acorn.pc and acorn-posix.pc are not tried")
  return()
endif()
set(ENV{PKG_CONFIG_LIBDIR} "${prefix}/${LIBDIR}/pkgconfig")
foreach(link IN ITEMS "" -static)
  set(static "")
  set(options ${LINK_OPTIONS})
  if(link)
    set(static --static)
    set(options ${link})  # alone: beside -static-pie it makes programs that do not start
  endif()
  execute_process(COMMAND "${pkg_config}" ${static} --cflags --libs acorn-posix
    OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  execute_process(COMMAND ${compile} "${SOURCE}/examples/ask.c" ${flags} ${options} -o "${WORK}/ask${link}"
    COMMAND_ERROR_IS_FATAL ANY)
endforeach()
execute_process(COMMAND ${EMULATOR} "${WORK}/ask-static" "${MODEL}" "turn on the lamp in the kitchen"
  OUTPUT_VARIABLE answer)
if(NOT answer MATCHES "${ANSWER}")
  message(FATAL_ERROR "the installed library answers: ${answer}")
endif()
