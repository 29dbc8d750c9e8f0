"""Makes tagger.pt and tagger.json: `python make_tagger.py` (torch)."""

import json
import pathlib

import torch

FOLDER = pathlib.Path(__file__).parent


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.LSTM(6, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.encoder(x)[0])


def main():
    torch.manual_seed(1)
    tagger = Tagger()
    # A few steps of training, so that the weights are not those of an initialisation.
    optimizer = torch.optim.Adam(tagger.parameters(), lr=0.01)
    x, target = torch.randn(4, 11, 6), torch.randn(4, 11, 5)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(tagger(x), target).backward()
        optimizer.step()
    with torch.no_grad():
        output = tagger(x)
    torch.save(tagger.state_dict(), FOLDER / "tagger.pt")
    recorded = {"input": x.flatten().tolist(), "output": output.flatten().tolist()}
    (FOLDER / "tagger.json").write_text(json.dumps(recorded))


if __name__ == "__main__":
    main()
