// Flags from declared settings: a struct with visit() (lib/config/config.h) gets one flag per field, the key
// with '-' for '_', its help, default and range from the declaration. Values are read by the reader of
// configuration files, so `--cells 1e3` and a file's `cells: 1e3` are refused in the same words.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>

#include <CLI/CLI.hpp>

#include "lib/config/config.h"

namespace scrna::app {

inline std::string flag_name(std::string_view key) {
  std::string name = "--" + std::string(key);
  std::replace(name.begin() + 2, name.end(), '_', '-');
  return name;
}

/// "command line: --cells" with the value as written, for config::read_value.
inline config::Node flag_node(const std::string& value) {
  config::Node node;
  node.kind = config::Node::Kind::kScalar;
  node.scalar = value;
  node.where = "command line";
  return node;
}

/// A flag for every field of `*target`, which must outlive the command's run (hence shared).
template <config::Section C>
void add_fields(CLI::App& command, const std::shared_ptr<C>& target) {
  const std::vector<config::Entry> entries = config::entries(*target);
  std::size_t index = 0;
  target->visit([&](std::string_view key, auto& member, std::string_view help, config::Bound bound = {}) {
    using Member = std::remove_cvref_t<decltype(member)>;
    static_assert(!config::Section<Member>, "flags are made of flat structs");
    const std::string name = flag_name(key);
    const auto read = [target, &member, name, bound](const std::string& value) {
      if constexpr (config::NamedEnum<Member>) {
        member =
            enum_names(member)[config::read_choice(flag_node(value), name, config::detail::names_of(member))]
                .second;
      } else {
        config::read_value(flag_node(value), name, bound, member);
      }
    };
    const config::Entry& entry = entries[index++];
    std::string text(help);
    if (!entry.range.empty()) text += "; " + entry.range;
    const bool is_number = std::is_arithmetic_v<Member>;
    command.add_option_function<std::string>(name, read, text)
        ->default_str(entry.value)
        ->type_name(config::NamedEnum<Member> ? "NAME"
                    : is_number               ? "N"
                                              : "TEXT");
  });
}

}  // namespace scrna::app
