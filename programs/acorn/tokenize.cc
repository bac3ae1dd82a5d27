// acorn tokenize: ids of the standard input, as they are: no start token, no template.
#include <cstdio>

#include "commands.h"
#include "error.h"
#include "statistics.h"

namespace acorn::program {

void Tokenize(int argc, char **argv) {
  DeviceOptions options;
  bool json = false, markup = false, chat = false, bos = false;
  Arguments arguments("tokenize FILE [OPTIONS] < TEXT", "Token ids of the standard input.");
  arguments.Flag("--markup", &markup, "special tokens in the text are read as such");
  arguments.Flag("--chat", &chat, "the text is one user turn in the model's chat template");
  arguments.Flag("--bos", &bos, "start with the model's start token where its tokenizer wants one");
  arguments.Flag("--json", &json, "as one line of JSON");
  AddDeviceOptions(&arguments, &options);
  if (!arguments.Parse(argc, argv)) return;
  if (chat && (markup || bos)) Fail(ExitCode::kUsage, "--chat stands alone");
  Device device(options);
  device.Open();
  const uint32_t flags = (markup ? ACORN_TEXT_MARKUP : 0) | (bos ? ACORN_TEXT_BOS : 0) | (chat ? ACORN_TEXT_CHAT : 0);
  const std::vector<int32_t> ids = device.Encode(ReadWholeFile("-"), flags);
  std::string list;
  Fnv digest;
  for (const int32_t id : ids) {
    if (!list.empty()) list += json ? ", " : " ";
    list += std::to_string(id);
    digest.Add(&id, 1);
  }
  if (!json) {
    std::printf("%s\n", list.c_str());
    return;
  }
  JsonWriter out;
  out.Number("tokens", ids.size());
  out.Raw("ids", "[" + list + "]");
  out.Hex("ids_digest", digest.value());
  std::printf("%s\n", out.Finish().c_str());
}

}  // namespace acorn::program
