# cmake -DINPUT=FILE -DOUTPUT=FILE -DNAME=Function -P embed.cmake: a C++ source whose function returns the file's bytes.
file(READ "${INPUT}" hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE "${OUTPUT}" "#include \"resources/resources.h\"

namespace acorn::compiler {
namespace {

constexpr unsigned char kBytes[] = {
${bytes}};

}  // namespace

std::string_view ${NAME}() { return {reinterpret_cast<const char *>(kBytes), sizeof kBytes}; }

}  // namespace acorn::compiler
")
