/**
 * Devices of a register or two.
 *
 * @module
 */
import type { PortDevice } from "../bus.ts";
import { checkState, type DeviceState } from "./state.ts";

/** QEMU's isa-debug-exit: a write ends the machine with exit code (value << 1) | 1. */
export function debugExit(exit: (code: number) => void): PortDevice {
  return {
    readPort: () => 0,
    writePort: (_port, _size, value) => exit(((value << 1) | 1) & 0xff),
  };
}

/** Port 0xE9 of Bochs: text, and it reads as its own number so that guests can tell. */
export function debugText(output: (byte: number) => void): PortDevice {
  return {
    readPort: () => 0xe9,
    writePort: (_port, _size, value) => output(value & 255),
  };
}

/** A port that takes everything and means nothing: POST codes, I/O delays. */
export const sink: PortDevice = {
  readPort: () => 0xff,
  writePort: () => {},
};

/** A device whose few bits of state are saved with the machine. */
export interface SmallDevice extends PortDevice {
  /** State after power-on. */
  reset(): void;
  /** Copies the state out. */
  save(): DeviceState;
  /** Takes back what `save` gave. */
  restore(state: DeviceState): void;
}

/** A register of which only bit 1 is kept; bit `trigger` written resets. */
function resetRegister(
  name: string,
  first: number,
  trigger: number,
  reset: () => void,
): SmallDevice {
  let value = first;
  return {
    readPort: () => value,
    writePort: (_port, _size, next) => {
      value = next & 2;
      if ((next & trigger) !== 0) reset();
    },
    reset: () => {
      value = first;
    },
    save: () => ({ value }),
    restore: (state) => {
      value = checkState(name, state, { value: 2 }).value & 2;
    },
  };
}

/** Port 0x92: the A20 gate, which is always open, and fast reset. */
export function systemControl(reset: () => void): SmallDevice {
  return resetRegister("system control port", 2, 1, reset);
}

/** Reset control register of port 0xCF9 (Intel I/O controller hub data sheets): bit 2 resets. */
export function resetControl(reset: () => void): SmallDevice {
  return resetRegister("reset control register", 0, 4, reset);
}

/** As much of an 8042 as resets the machine, opens A20 and passes its self test. */
export function keyboardController(reset: () => void): SmallDevice {
  let answer = -1;
  let command = 0;
  return {
    readPort: (port) => {
      if (port === 0x64) return 0x14 | (answer >= 0 ? 1 : 0);
      const value = answer;
      answer = -1;
      return Math.max(0, value);
    },
    writePort: (port, _size, value) => {
      if (port === 0x60) {
        // Output port written: bit 0 low resets.
        if (command === 0xd1 && (value & 1) === 0) reset();
        command = 0;
        return;
      }
      command = value & 255;
      if (value === 0xaa) answer = 0x55;
      else if (value === 0x20 || value === 0xab) answer = 0;
      else if (value === 0xd0) answer = 3;
      // Commands from 0xF0 on pulse outputs; output 0 is the reset line.
      else if ((value & 0xf1) === 0xf0) reset();
    },
    reset: () => {
      answer = -1;
      command = 0;
    },
    save: () => ({ answer: answer + 1, command }),
    restore: (state) => {
      const s = checkState("keyboard controller", state, {
        answer: 256,
        command: 255,
      });
      answer = s.answer - 1;
      command = s.command;
    },
  };
}
