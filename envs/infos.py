"""Readers of the info of a batch of environments: action masks, success, and entries that hindsight needs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrl.envs.spec import Spec
from hrl.envs.wrappers.guard import MASK, SUCCESS_KEYS, EnvironmentFault


class InfoReader:
    """Reads the info of N environments as tensors on `device`. Messages name the environment steps so far, `steps`."""

    def __init__(self, spec: Spec, num_envs: int, device: torch.device) -> None:
        self.spec, self.num_envs, self.device = spec, num_envs, device
        self.reports_success = False
        """True after an info has reported success, or the lack of it."""
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._nothing = torch.zeros(num_envs, 0, device=device)

    def mask(self, info: dict[str, Any], steps: int) -> Tensor | None:
        """[N, K] the available choices from `info["action_mask"]`; all choices where an environment gives no mask."""
        if not self.spec.mask_dim:
            return None
        values, there = info.get(MASK), info.get(f"_{MASK}")
        mask = torch.ones(self.num_envs, self.spec.mask_dim, device=self.device)
        if values is None:
            return mask
        try:
            if isinstance(values, np.ndarray) and values.dtype == object:
                values = np.stack([np.ones(self.spec.mask_dim) if v is None else np.asarray(v) for v in values])
            given = torch.as_tensor(values, dtype=torch.float32, device=self.device).reshape(mask.shape)
        except (TypeError, ValueError, RuntimeError) as error:
            raise EnvironmentFault(
                f"{self.spec.env_id} returned an action mask that is not {self.spec.mask_dim} booleans at environment "
                f"step {steps}: {error}"
            ) from error
        known = torch.as_tensor(True if there is None else there, device=self.device).expand(self.num_envs)
        mask = torch.where(known.unsqueeze(-1), given, mask)
        if self.device.type == "cpu" and bool((mask.sum(-1) == 0).any()):
            raise EnvironmentFault(
                f"{self.spec.env_id} returned an action mask without any available action at environment step {steps}."
            )
        return mask

    def success(self, info: dict[str, Any], done: Tensor, steps: int) -> Tensor:
        """`is_success` or `success` of this step, from the final info where an episode ended under SAME_STEP."""
        success, final = self._flag(info, steps), info.get("final_info")
        return torch.where(done, self._flag(final, steps), success) if isinstance(final, dict) else success

    def _flag(self, info: dict[str, Any], steps: int) -> Tensor:
        for key in SUCCESS_KEYS:
            if key in info:
                self.reports_success = True
                values = info[key]
                if isinstance(values, np.ndarray) and values.dtype == object:
                    values = np.array([bool(np.all(v)) for v in values])
                try:
                    flags = torch.as_tensor(values, device=self.device).bool()
                    return flags.reshape(self.num_envs, -1).all(-1)
                except (TypeError, ValueError, RuntimeError) as error:
                    raise EnvironmentFault(
                        f"{self.spec.env_id} reported a success that is not a boolean at environment step {steps}."
                    ) from error
        return self._never

    def kept(self, info: dict[str, Any]) -> Tensor:
        """[N, K] the entries of info that hindsight needs, from the final info where an episode ended."""
        parts = []
        for key in self.spec.info:
            now, final = info.get(key), (info.get("final_info") or {}).get(key)
            if now is None and final is None:
                raise EnvironmentFault(f"{self.spec.env_id} returned an info without {key!r}, which --goal.info names.")
            values = torch.as_tensor(final if now is None else now, dtype=torch.float32, device=self.device)
            values = values.reshape(self.num_envs, -1)
            if now is not None and final is not None:
                there = torch.as_tensor(info["final_info"].get(f"_{key}", True), device=self.device)
                final = torch.as_tensor(final, dtype=torch.float32, device=self.device).reshape(values.shape)
                values = torch.where(there.expand(self.num_envs).unsqueeze(-1), final, values)
            parts.append(values)
        return torch.cat(parts, -1) if parts else self._nothing
