/**
 * Takes apart what describe-stacks says: read-stack.mjs REPLY DEPLOYED OUTPUTS (names of files). Prints state, id and reason, a
 * line each; writes parameters and outputs, a line "name<tab>value" each. What a parameter of the Parameter Store was found to be
 * stands under "name.resolved".
 */
import { readFileSync, writeFileSync } from 'node:fs'

const [replyFile, deployedFile, outputsFile] = process.argv.slice(2)
const { Parameters = [], Outputs, ...stack } = JSON.parse(readFileSync(replyFile, 'utf8')).Stacks[0]
const write = (file, entries) =>
  writeFileSync(file, entries.map(([name, value]) => `${name}\t${value ?? ''}\n`).join(''))
write(
  deployedFile,
  Parameters.flatMap(({ ParameterKey, ParameterValue, ResolvedValue }) => [
    [ParameterKey, ParameterValue],
    ...(ResolvedValue === undefined ? [] : [[`${ParameterKey}.resolved`, ResolvedValue]]),
  ]),
)
write(
  outputsFile,
  // null, where there are none.
  (Outputs ?? []).map(({ OutputKey, OutputValue }) => [OutputKey, OutputValue]),
)
const reason = (stack.StackStatusReason ?? '').replaceAll(/\s+/g, ' ')
process.stdout.write(`${stack.StackStatus}\n${stack.StackId}\n${reason}\n`)
