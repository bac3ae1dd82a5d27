# acorn_add_run_test(NAME name TARGET program [ARGUMENTS word...] [INPUT line...] [CODE n] [OUT regex] [ERR regex]
#                    [EMULATOR word...] [LABELS label...])
#
# A test that runs a program: its exit code must be CODE (default 0), its standard output and error must match OUT and ERR. In a
# cross build it runs in EMULATOR, by default the toolchain file's.
function(acorn_add_run_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;TARGET;CODE;OUT;ERR" "ARGUMENTS;INPUT;EMULATOR;LABELS")
  if(arg_UNPARSED_ARGUMENTS OR NOT arg_NAME OR NOT arg_TARGET)
    message(FATAL_ERROR "acorn_add_run_test: NAME and TARGET are needed; unknown: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_EMULATOR)
    set(arg_EMULATOR ${CMAKE_CROSSCOMPILING_EMULATOR})
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS fast)
  endif()
  if(NOT arg_CODE)
    set(arg_CODE 0)
  endif()
  add_test(NAME ${arg_NAME} COMMAND "${CMAKE_COMMAND}" "-DPROGRAM=$<TARGET_FILE:${arg_TARGET}>" "-DEMULATOR=${arg_EMULATOR}"
    "-DARGUMENTS=${arg_ARGUMENTS}" "-DINPUT=${arg_INPUT}" "-DCODE=${arg_CODE}" "-DOUT=${arg_OUT}" "-DERR=${arg_ERR}"
    "-DINPUT_FILE=${CMAKE_CURRENT_BINARY_DIR}/${arg_NAME}.in" -P "${PROJECT_SOURCE_DIR}/cmake/run_test.cmake")
  set_tests_properties(${arg_NAME} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 300)
endfunction()
