import { Hot, hotOps } from "./hot.ts";
import { OpcodeTable } from "./opcode_table.ts";
import { bcdOps } from "./ops_bcd.ts";
import { bitOps } from "./ops_bit.ts";
import { bmiOps } from "./ops_bmi.ts";
import { exchangeOps } from "./ops_exchange.ts";
import { ioOps } from "./ops_io.ts";
import { miscOps } from "./ops_misc.ts";
import { mulDivOps } from "./ops_muldiv.ts";
import { checkedBranch, invalid, nearOps } from "./ops_near.ts";
import { segmentOps } from "./ops_segment.ts";
import { shiftOps } from "./ops_shift.ts";
import { stringOps } from "./ops_string.ts";
import { systemOps } from "./ops_system.ts";
import { x87ArithmeticOps } from "./ops_x87_arithmetic.ts";
import { x87ControlOps } from "./ops_x87_control.ts";
import { x87MoveOps } from "./ops_x87_move.ts";
import { xsaveOps } from "./ops_xsave.ts";

let table: OpcodeTable | undefined;

/** The opcode tables of all families, built at first use and then shared. */
export function opcodeTable(): OpcodeTable {
  if (table === undefined) {
    table = new OpcodeTable(Hot.COUNT, [
      hotOps(),
      nearOps,
      bcdOps,
      bitOps,
      bmiOps,
      exchangeOps,
      ioOps,
      miscOps,
      mulDivOps,
      segmentOps,
      shiftOps,
      stringOps,
      systemOps,
      x87ArithmeticOps,
      x87ControlOps,
      x87MoveOps,
      xsaveOps,
    ]);
    // The decoder substitutes these two; no opcode names them.
    table.number(checkedBranch);
    table.number(invalid);
  }
  return table;
}
