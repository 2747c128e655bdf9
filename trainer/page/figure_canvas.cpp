#include "trainer/page/figure_canvas.h"

#include <cairo-pdf.h>
#include <cairo-svg.h>
#include <utf8proc.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "dist/base/error.h"

namespace nibble {

namespace {

constexpr double png_dots_per_inch = 300;
constexpr std::string_view mark = "figure by nibble";     // in each file, so that it is known again
constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

cairo_status_t append(void* bytes, const unsigned char* data, unsigned int size) {
  static_cast<std::string*>(bytes)->append(reinterpret_cast<const char*>(data), size);
  return CAIRO_STATUS_SUCCESS;
}

cairo_surface_t* new_surface(FigureKind kind, double width, double height, std::string* bytes) {
  if (kind == FigureKind::svg) return cairo_svg_surface_create_for_stream(append, bytes, width, height);
  if (kind == FigureKind::pdf) return cairo_pdf_surface_create_for_stream(append, bytes, width, height);
  constexpr double scale = png_dots_per_inch / 72;
  return cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(std::lround(width * scale)),
                                    static_cast<int>(std::lround(height * scale)));
}

// Returns the characters of a text; what is none is replaced.
std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> all;
  while (!text.empty()) {
    utf8proc_int32_t character = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                                     static_cast<utf8proc_ssize_t>(text.size()), &character);
    const bool is_shown = length > 0 && utf8proc_category(character) != UTF8PROC_CATEGORY_CC;
    all.emplace_back(is_shown ? text.substr(0, static_cast<size_t>(length)) : replacement);
    text.remove_prefix(static_cast<size_t>(std::max<utf8proc_ssize_t>(1, length)));
  }
  return all;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += text;
  return all;
}

void append_big_endian(std::string& bytes, uint64_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xFF);
}

// Returns a chunk of a PNG file (https://www.w3.org/TR/png).
std::string png_chunk(std::string_view type, std::string_view content) {
  std::string chunk;
  append_big_endian(chunk, content.size());
  chunk.append(type).append(content);
  append_big_endian(chunk,
                    crc32(0, reinterpret_cast<const Bytef*>(chunk.data() + 4), static_cast<uInt>(chunk.size() - 4)));
  return chunk;
}

// Adds the resolution, which text processors take the size from, and the mark.
void complete_png(std::string& png) {
  constexpr size_t after_header = 8 + 25;  // signature and IHDR
  std::string resolution;
  const auto dots_per_metre = static_cast<uint64_t>(std::lround(png_dots_per_inch / 0.0254));
  append_big_endian(resolution, dots_per_metre);
  append_big_endian(resolution, dots_per_metre);
  resolution += '\1';
  png.insert(after_header,
             png_chunk("pHYs", resolution) + png_chunk("tEXt", std::string("Software") + '\0' + std::string(mark)));
}

// Takes the number out of the name of the picture's group: cairo counts the surfaces of the process.
void complete_svg(std::string& svg) {
  constexpr std::string_view group = "<g id=\"surface";
  const size_t number = svg.find(group) + group.size();
  if (number < svg.size()) svg.erase(number, svg.find_first_not_of("0123456789", number) - number);
  svg += "<!-- " + std::string(mark) + " -->\n";
}

}  // namespace

CurveStyle curve_style(size_t run) {
  constexpr unsigned colors[] = {0x0072B2, 0xD55E00, 0x009E73, 0xCC79A7, 0x000000, 0xE69F00, 0x56B4E9};
  const unsigned color = colors[run % std::size(colors)];
  const auto pattern = static_cast<int>(run / std::size(colors) % 3);
  const std::vector<double> dashes[] = {{}, {5, 2}, {1.2, 1.6}};
  return {(color >> 16) / 255.0, (color >> 8 & 0xFF) / 255.0, (color & 0xFF) / 255.0, dashes[pattern], pattern};
}

FigureCanvas::FigureCanvas(FigureKind kind, double width, double height)
    : kind_(kind), surface_(new_surface(kind, width, height, &bytes_)), context_(cairo_create(surface_.get())) {
  if (kind_ == FigureKind::pdf) {
    cairo_pdf_surface_set_metadata(surface_.get(), CAIRO_PDF_METADATA_CREATE_DATE, nullptr);
  } else if (kind_ == FigureKind::png) {
    cairo_scale(context_.get(), png_dots_per_inch / 72, png_dots_per_inch / 72);
  }
  cairo_set_source_rgb(context_.get(), 1, 1, 1);
  cairo_paint(context_.get());
  set_font(9);
}

void FigureCanvas::set_font(double size, bool bold) {
  cairo_select_font_face(context_.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                         bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(context_.get(), size);
}

double FigureCanvas::text_width(std::string_view text) {
  cairo_text_extents_t extents;
  cairo_text_extents(context_.get(), joined(characters(text)).c_str(), &extents);
  return extents.x_advance;
}

std::string FigureCanvas::fitting(std::string_view text, double width) {
  const std::vector<std::string> all = characters(text);
  if (text_width(text) <= width) return joined(all);
  for (size_t kept = all.size() - 1; kept > 1; --kept) {
    const auto front = static_cast<std::ptrdiff_t>((kept + 1) / 2), back = static_cast<std::ptrdiff_t>(kept / 2);
    const std::string shorter =
        joined({all.begin(), all.begin() + front}) + "\xE2\x80\xA6" + joined({all.end() - back, all.end()});
    if (text_width(shorter) <= width) return shorter;
  }
  return "\xE2\x80\xA6";
}

void FigureCanvas::text(double x, double y, std::string_view text, Anchor anchor) {
  const double share = anchor == Anchor::begin ? 0 : anchor == Anchor::middle ? 0.5 : 1;
  cairo_set_source_rgb(context_.get(), 0, 0, 0);
  cairo_move_to(context_.get(), x - share * text_width(text), y);
  cairo_show_text(context_.get(), joined(characters(text)).c_str());
}

void FigureCanvas::text_upwards(double x, double y, std::string_view text) {
  cairo_save(context_.get());
  cairo_translate(context_.get(), x, y);
  cairo_rotate(context_.get(), -std::numbers::pi / 2);
  this->text(0, 0, text, Anchor::middle);
  cairo_restore(context_.get());
}

void FigureCanvas::line(FigurePoint from, FigurePoint to, double width, double grey) {
  cairo_set_source_rgb(context_.get(), grey, grey, grey);
  cairo_set_line_width(context_.get(), width);
  cairo_set_dash(context_.get(), nullptr, 0, 0);
  cairo_move_to(context_.get(), from.x, from.y);
  cairo_line_to(context_.get(), to.x, to.y);
  cairo_stroke(context_.get());
}

void FigureCanvas::rectangle(double x, double y, double width, double height, double grey) {
  cairo_set_source_rgb(context_.get(), grey, grey, grey);
  cairo_rectangle(context_.get(), x, y, width, height);
  cairo_fill(context_.get());
}

void FigureCanvas::clip(double x, double y, double width, double height) {
  cairo_save(context_.get());
  cairo_rectangle(context_.get(), x, y, width, height);
  cairo_clip(context_.get());
}

void FigureCanvas::unclip() {
  cairo_restore(context_.get());
}

void FigureCanvas::curve(const std::vector<FigurePoint>& points, const CurveStyle& style, double width,
                         double opacity) {
  cairo_set_source_rgba(context_.get(), style.red, style.green, style.blue, opacity);
  cairo_set_line_width(context_.get(), width);
  cairo_set_line_join(context_.get(), CAIRO_LINE_JOIN_ROUND);
  cairo_set_dash(context_.get(), style.dashes.data(), static_cast<int>(style.dashes.size()), 0);
  bool begins = true;
  for (const FigurePoint& point : points) {
    if (!std::isfinite(point.x) || !std::isfinite(point.y)) {
      begins = true;
    } else if (begins) {
      cairo_move_to(context_.get(), point.x, point.y);
      begins = false;
    } else {
      cairo_line_to(context_.get(), point.x, point.y);
    }
  }
  cairo_stroke(context_.get());
  cairo_set_dash(context_.get(), nullptr, 0, 0);
}

void FigureCanvas::marker(FigurePoint at, const CurveStyle& style, double size) {
  if (!std::isfinite(at.x) || !std::isfinite(at.y)) return;
  cairo_new_path(context_.get());
  if (style.marker == 0) {
    cairo_arc(context_.get(), at.x, at.y, size / 2, 0, 2 * std::numbers::pi);
  } else if (style.marker == 1) {
    cairo_rectangle(context_.get(), at.x - 0.44 * size, at.y - 0.44 * size, 0.88 * size, 0.88 * size);
  } else {
    cairo_move_to(context_.get(), at.x, at.y - 0.6 * size);
    cairo_line_to(context_.get(), at.x + 0.55 * size, at.y + 0.4 * size);
    cairo_line_to(context_.get(), at.x - 0.55 * size, at.y + 0.4 * size);
    cairo_close_path(context_.get());
  }
  cairo_set_source_rgb(context_.get(), style.red, style.green, style.blue);
  cairo_fill_preserve(context_.get());
  cairo_set_source_rgb(context_.get(), 1, 1, 1);
  cairo_set_line_width(context_.get(), 0.6);
  cairo_stroke(context_.get());
}

std::string FigureCanvas::finish() {
  cairo_status_t status = cairo_status(context_.get());
  if (status == CAIRO_STATUS_SUCCESS && kind_ == FigureKind::png) {
    status = cairo_surface_write_to_png_stream(surface_.get(), append, &bytes_);
  }
  cairo_surface_finish(surface_.get());
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_status(surface_.get());
  if (status != CAIRO_STATUS_SUCCESS) {
    throw Error(ExitCode::internal, std::string("cairo cannot draw the figure: ") + cairo_status_to_string(status),
                "report this");
  }
  if (kind_ == FigureKind::svg) complete_svg(bytes_);
  if (kind_ == FigureKind::pdf) bytes_ += "% " + std::string(mark) + "\n";  // readers skip what is behind the end
  if (kind_ == FigureKind::png) complete_png(bytes_);
  return bytes_;
}

bool is_figure(std::string_view file) {
  return file.find(mark) != std::string_view::npos;
}

}  // namespace nibble
