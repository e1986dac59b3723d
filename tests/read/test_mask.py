"""A mask that says the same for every query keeps what it made of itself, as long as nobody writes to it."""

import torch

from recuerdo.read import allow, read


def test_a_mask_that_is_read_with_again_is_the_same_and_what_is_written_to_it_counts():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 4, 8) for _ in range(3))
    allowed = torch.tensor([[True, True, False, True], [False, False, False, False]])[:, None, None]
    mask = allow(allowed)
    for _ in range(3):
        found = read(query, key, value, mask=mask, path="fused")
        wanted = read(query, key, value, mask=allow(allowed.clone()), path="plain")
        torch.testing.assert_close(found.mixed, wanted.mixed)
        torch.testing.assert_close(found.lse, wanted.lse)
        assert torch.isneginf(found.lse[1]).all()
    allowed[1, 0, 0, 2] = True
    found = read(query, key, value, mask=mask, path="fused")
    torch.testing.assert_close(found.mixed[1], value[1, :, 2:3].expand(-1, 4, -1))
    with torch.inference_mode():
        mask = allow(allowed.clone())
        before = read(query, key, value, mask=mask, path="fused").mixed
        mask.allowed.fill_(True)
        assert not torch.equal(read(query, key, value, mask=mask, path="fused").mixed, before)
