// EXPECT_ERROR: a statement throws compiler::Error with this exit code and a message that holds this text.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

#define EXPECT_ERROR(statement, exit_code, part)                                                         \
  do {                                                                                                   \
    try {                                                                                                \
      statement;                                                                                         \
      ADD_FAILURE() << "no error, expected one with: " << (part);                                        \
    } catch (const ::acorn::compiler::Error &fault) {                                                    \
      EXPECT_EQ(fault.code(), exit_code) << fault.what();                                                \
      EXPECT_NE(std::string(fault.what()).find(part), std::string::npos) << "message: " << fault.what(); \
    }                                                                                                    \
  } while (0)
