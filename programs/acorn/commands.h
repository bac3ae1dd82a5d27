// The subcommands. Each parses what follows its name, works, and returns; failures are thrown (error.h).
#pragma once

namespace acorn::program {

void Run(int argc, char **argv);
void Chat(int argc, char **argv);
void Plan(int argc, char **argv);
void Bench(int argc, char **argv);
void Perplexity(int argc, char **argv);
void Tokenize(int argc, char **argv);
void Eval(int argc, char **argv);
void SelfTest(int argc, char **argv);
void Trace(int argc, char **argv);
void Replay(int argc, char **argv);
void Verify(int argc, char **argv);

}  // namespace acorn::program
