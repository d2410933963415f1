// A simulation asks the closure: four-fluxes in, four-fluxes out, through LibTorch.
//
//     make export run=<directory> format=torchscript          writes export/model.ts
//     build/closure export/model.ts < states.txt > final.txt
//
// One line a cell: 24 numbers F[nu/nubar][e, mu, tau][x, y, z, t] in 1/cm^3, then the fluid's four-velocity u[x, y, z, t] in units
// of c. One line out: the 24 numbers after fast flavor conversion, in the same frame. How many cells fell back to Box3D is told on
// standard error.

#include <torch/script.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: closure model.ts < states > final\n";
    return 2;
  }
  torch::jit::Module closure = torch::jit::load(argv[1]);
  closure.eval();
  c10::InferenceMode no_gradients;

  std::vector<double> numbers;
  for (double value; std::cin >> value;) numbers.push_back(value);
  if (numbers.empty() || numbers.size() % 28 != 0) {
    std::cerr << numbers.size() << " numbers; each cell needs 24 + 4.\n";
    return 2;
  }
  const auto cells = static_cast<int64_t>(numbers.size() / 28);
  const torch::Tensor rows = torch::from_blob(numbers.data(), {cells, 28}, torch::kFloat64);
  const torch::Tensor F = rows.narrow(1, 0, 24).reshape({cells, 2, 3, 4});
  const torch::Tensor u = rows.narrow(1, 24, 4).contiguous();

  const auto answer = closure.forward({F, u}).toTuple()->elements();
  // final, error, unstable, fallen_back, valid, growth
  const torch::Tensor final = answer[0].toTensor().reshape({cells, 24}).contiguous();
  const auto fallen_back = answer[3].toTensor().sum().item<double>();

  const double* value = final.data_ptr<double>();
  for (int64_t cell = 0; cell < cells; ++cell) {
    for (int k = 0; k < 24; ++k) std::printf("%.17g%c", value[24 * cell + k], k == 23 ? '\n' : ' ');
  }
  std::cerr << cells << " cells, " << fallen_back << " by Box3D alone\n";
}
