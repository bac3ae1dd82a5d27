# cmake -DPROGRAM=... -DARGUMENTS=... -DCODE=N -DTEXT=... -P expect.cmake: runs a program; fails unless it exits with CODE and
# prints TEXT.
execute_process(COMMAND ${PROGRAM} ${ARGUMENTS} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE out)
string(FIND "${out}" "${TEXT}" place)
if(NOT code STREQUAL CODE OR place EQUAL -1)
  message(FATAL_ERROR "exit code ${code}, wanted ${CODE} and \"${TEXT}\":\n${out}")
endif()
