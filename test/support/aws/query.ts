/**
 * Parameters of EC2's query protocol, kept flat as they are sent: `TagSpecification.1.Tag.2.Key`. Lists count from 1.
 */
import type { XmlNode } from './xml.ts'

export type Params = Readonly<Record<string, string>>

export function parseQuery(body: string): Params {
  return Object.fromEntries(new URLSearchParams(body))
}

/** Encoded as Python does it: moto encodes the parameters anew so when it checks a signature. */
export function printQuery(params: Params): string {
  const encode = (text: string): string =>
    encodeURIComponent(text)
      .replaceAll(/[!'()*]/g, char => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
      .replaceAll('%20', '+')
  return Object.entries(params)
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .join('&')
}

/** What stands under a prefix, without it: `sub({ 'A.B': '1' }, 'A')` is `{ B: '1' }`. */
export function sub(params: Params, prefix: string): Params {
  return Object.fromEntries(
    Object.entries(params)
      .filter(([name]) => name.startsWith(`${prefix}.`))
      .map(([name, value]) => [name.slice(prefix.length + 1), value]),
  )
}

/** The structures of a list, in their order. */
export function structures(params: Params, list: string): Params[] {
  return indexes(params, list).map(index => sub(params, `${list}.${index}`))
}

/** The plain values of a list, in their order. */
export function values(params: Params, list: string): string[] {
  return indexes(params, list).map(index => params[`${list}.${index}`] ?? '')
}

function indexes(params: Params, list: string): number[] {
  const numbers = Object.keys(sub(params, list)).map(name => Number(name.split('.')[0]))
  return [...new Set(numbers)].filter(Number.isInteger).sort((a, b) => a - b)
}

/** Without some parameters, and all that stands under them. */
export function without(params: Params, ...names: string[]): Params {
  return Object.fromEntries(
    Object.entries(params).filter(([name]) => !names.some(gone => name === gone || name.startsWith(`${gone}.`))),
  )
}

/** A part of a reply as the parameters that would have asked for it: `tagSet` becomes `Tag.1`, `imageId` `ImageId`. */
export function paramsOf(node: XmlNode): Params {
  const params: Record<string, string> = {}
  const walk = (at: XmlNode, path: string): void => {
    for (const [index, child] of at.children.entries()) {
      const isMember = child.name === 'item' || at.name === 'groupSet'
      const name = isMember ? String(index + 1) : parameterName(child)
      const here = path === '' ? name : `${path}.${name}`
      if (child.children.length > 0) walk(child, here)
      else if (child.text !== '') params[here] = child.text
    }
  }
  walk(node, '')
  return params
}

function parameterName({ name }: XmlNode): string {
  // The groups of a network interface are the one list whose parameter has another name than its element.
  if (name === 'groupSet') return 'SecurityGroupId'
  const singular = name.endsWith('Set') ? name.slice(0, -3) : name
  return singular.charAt(0).toUpperCase() + singular.slice(1)
}

/** Tags by kind of resource, from `TagSpecification`. */
export function tagsOf(params: Params): Map<string, Map<string, string>> {
  const byKind = new Map<string, Map<string, string>>()
  for (const specification of structures(params, 'TagSpecification')) {
    const kind = specification.ResourceType ?? ''
    const tags = byKind.get(kind) ?? new Map<string, string>()
    for (const { Key = '', Value = '' } of structures(specification, 'Tag')) tags.set(Key, Value)
    byKind.set(kind, tags)
  }
  return byKind
}

/** Tags as `TagSpecification` again. */
export function tagParams(byKind: ReadonlyMap<string, ReadonlyMap<string, string>>): Params {
  const params: Record<string, string> = {}
  for (const [index, [kind, tags]] of [...byKind].entries()) {
    const specification = `TagSpecification.${index + 1}`
    params[`${specification}.ResourceType`] = kind
    for (const [at, [key, value]] of [...tags].entries()) {
      params[`${specification}.Tag.${at + 1}.Key`] = key
      params[`${specification}.Tag.${at + 1}.Value`] = value
    }
  }
  return params
}
