/**
 * The parameters of the stack: parameters.mjs TEMPLATE GIVEN DEPLOYED SETTINGS PARAMETERS (names of files).
 *   GIVEN       in:  what was asked for, a line "name=value" each
 *   DEPLOYED    in:  what the deployed stack has, a line "name<tab>value" each; empty where there is none
 *   SETTINGS    out: what counts, a line "name=value" each: given, else deployed, else the template's default
 *   PARAMETERS  out: the same for CloudFormation, but where Amazon Linux is found: CloudFormation looks there
 */
import { readFileSync, writeFileSync } from 'node:fs'

const [templateFile, givenFile, deployedFile, settingsFile, parametersFile] = process.argv.slice(2)
const text = readFileSync(templateFile, 'utf8')
const section = /^Parameters:\n([\s\S]*?)^\w/m.exec(text)?.[1] ?? ''
const defaults = new Map()
const isFound = new Set()
for (const [, name, body] of section.matchAll(/^ {2}(p\w+):\n((?: {4}.*\n|\n)*)/gm)) {
  const value = /^ {4}Default: (.*)$/m.exec(body)?.[1]?.replace(/^(['"])(.*)\1$/, '$2')
  defaults.set(name, value)
  if (/^ {4}Type: AWS::SSM::/m.test(body)) isFound.add(name)
}
const given = pairs(givenFile, '=')
const deployed = pairs(deployedFile, '\t')
const unknown = [...given.keys()].filter(name => !defaults.has(name))
if (unknown.length > 0) {
  process.stderr.write(`The template has no parameter ${unknown.join(', ')}\n`)
  process.exit(1)
}
const names = [...defaults.keys()]
const settings = names.map(name => [name, given.get(name) ?? deployed.get(name) ?? defaults.get(name) ?? ''])
writeFileSync(settingsFile, settings.map(([name, value]) => `${name}=${value}\n`).join(''))
const parameters = settings
  .filter(([name]) => !isFound.has(name))
  .map(([ParameterKey, ParameterValue]) => ({ ParameterKey, ParameterValue }))
writeFileSync(parametersFile, JSON.stringify(parameters))

function pairs(file, separator) {
  const lines = readFileSync(file, 'utf8')
    .split('\n')
    .filter(line => line.includes(separator))
  return new Map(lines.map(line => [line.slice(0, line.indexOf(separator)), line.slice(line.indexOf(separator) + 1)]))
}
